package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/cluster"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe"
	"ambientlab/internal/problem"
	"ambientlab/internal/sabotage"
)

// TestPackets takes a lab whose pods run through every lesson, on traffic: a proof is refuted where the lesson was
// tampered with, and holds again after the lesson's target; what is killed comes back; nothing is left at the end.
func TestPackets(t *testing.T) {
	b := newBench(t, "packets", "SM_PACKETS=on")
	start := time.Now()
	b.installOrSkip()
	t.Logf("install took %s", time.Since(start).Round(10*time.Millisecond))
	b.do("apps", b.apps)
	address := b.hostAddress()
	says(t, "apps", b.talk.String(), "try: curl -H 'Host: "+names.Host+"' http://"+address+"/headers",
		"in a browser: http://"+names.LocalHost+":"+address[strings.LastIndex(address, ":")+1:]+"/headers")
	b.answers(http.MethodGet, address, http.StatusOK)
	t.Logf("first 200 after %s", time.Since(start).Round(10*time.Millisecond))
	b.podsAnswer()
	b.kubectlWorks()
	b.do("waypoint", b.waypoint)
	b.do("fault", b.fault)
	b.do("authz", func(ctx context.Context) error { return b.Authz(ctx, "", true, false) })
	b.answers(http.MethodPost, address, http.StatusForbidden)

	for _, way := range sabotage.All() {
		b.refutes(way)
	}
	says(t, "verify", b.do("verify", b.verify), "claims proven in ", "direct-closed", "upstream Envoy", "Go node proxy")
	says(t, "status", b.do("status", b.Status), "istio-cni ", "simulated", "lesson authz", "on, ready")

	b.nothingInherited()
	b.survivesKills(address)
	says(t, "verify", b.do("verify after the kills", b.verify), "claims proven in ")

	inside := append(descendants(t, b.pid("podrunner")), b.pid("podrunner"))
	b.do("delete", b.Delete)
	for _, pid := range inside {
		if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(command) > 0 {
			t.Errorf("process %d is left: %q", pid, command)
		}
	}
	mounts := read(t, "/proc/self/mountinfo")
	if strings.Contains(mounts, b.StateDir) {
		t.Error("something is mounted in the lab's folder")
	}
	if _, err := os.Stat(b.StateDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files are left in %s: %v", b.StateDir, err)
	}
}

// installOrSkip installs a lab whose pods run, and skips the test on a machine where they cannot.
func (b *bench) installOrSkip() {
	b.t.Helper()
	err := b.Install(b.t.Context())
	if problem.Is(err, problem.HostUnsupported) {
		b.t.Skipf("pods cannot run on this machine, so only the tests on configuration can: %v", err)
	}
	if err != nil {
		b.t.Fatalf("install: %v", err)
	}
}

// hostAddress is where the gateway is reached from this machine.
func (b *bench) hostAddress() string {
	b.t.Helper()
	service, err := b.connect().Kube().CoreV1().Services("default").
		Get(b.t.Context(), names.GatewayAccount, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	first, _, _ := strings.Cut(service.Annotations[cluster.HostAddress], ",")
	return first
}

// answers sends requests through the gateway until one has the wanted answer.
func (b *bench) answers(method, address string, want int) {
	b.t.Helper()
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	last := "no request was sent"
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		request, err := http.NewRequestWithContext(b.t.Context(), method, "http://"+address+"/status/200", http.NoBody)
		if err != nil {
			b.t.Fatal(err)
		}
		request.Host = names.Host
		response, err := client.Do(request)
		if err != nil {
			last = err.Error()
			continue
		}
		_, _ = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if response.StatusCode == want {
			return
		}
		last = response.Status
	}
	b.t.Fatalf("%s through the gateway: %s, want %d", method, last, want)
}

// refutes breaks the lab in one way: the claims that it touches are not proven any more, and the likely cause is named;
// after the target that repairs it they are proven again.
func (b *bench) refutes(way sabotage.Sabotage) {
	b.t.Helper()
	start := time.Now()
	if err := way.Break(b.t.Context(), b.dynamic(), "default"); err != nil {
		b.t.Fatalf("%s: %v", way.Name, err)
	}
	var wrong []string
	var found probe.Report
	// The change takes a moment to arrive at the proxies.
	for deadline := start.Add(2 * time.Minute); time.Now().Before(deadline); {
		wrong, found.Claims = nil, b.measure(way.Claims)
		for _, r := range found.Claims {
			if r.Verdict == probe.Proven || !strings.Contains(strings.Join(r.Causes, "\n"), way.Cause) {
				wrong = append(wrong, fmt.Sprintf("%s is %s, causes %q", r.ID, r.Verdict, r.Causes))
			}
		}
		if len(wrong) == 0 {
			break
		}
	}
	if len(wrong) > 0 {
		b.t.Errorf("%s: want it not proven because of %q: %s", way.Name, way.Cause, strings.Join(wrong, "; "))
	}
	refuted := time.Since(start)
	names := []string{way.Cause}
	for _, change := range way.Changes {
		names = append(names, change.Object)
	}
	b.dumped(way.Name, conclude(b.lab().open(b.t), found, ""), names...)
	if err := way.Mend(b.t.Context(), b.dynamic(), "default"); err != nil {
		b.t.Fatalf("%s: %v", way.Name, err)
	}
	b.do(way.Target+" again", map[string]func(context.Context) error{
		"install": b.Install, "waypoint": b.waypoint, "fault": b.fault,
		"authz": func(ctx context.Context) error { return b.Authz(ctx, "", true, false) },
		"split": b.split, "l4": b.l4, "telemetry": b.telemetry,
	}[way.Target])
	for _, r := range b.conclusive(way.Claims) {
		if r.Verdict != probe.Proven {
			b.t.Errorf("%s, repaired: %s is %s, causes %q", way.Name, r.ID, r.Verdict, r.Causes)
		}
	}
	b.t.Logf("%s: refuted after %s, proven again after %s", way.Name, refuted.Round(10*time.Millisecond),
		time.Since(start).Round(10*time.Millisecond))
}

// conclusive measures again what was inconclusive, as its advice says: on a loaded machine, lines of the waypoint's log
// can be late.
func (b *bench) conclusive(claims []string) []probe.Result {
	b.t.Helper()
	for range 2 {
		found := b.measure(claims)
		if !slices.ContainsFunc(found, func(r probe.Result) bool { return r.Verdict == probe.Inconclusive }) {
			return found
		}
	}
	return b.measure(claims)
}

// measure judges some claims as sm:verify does.
func (b *bench) measure(claims []string) []probe.Result {
	b.t.Helper()
	env, err := proofs(b.t.Context(), b.lab().open(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	env.Only = claims
	found, err := probe.Run(b.t.Context(), env)
	if err != nil {
		b.t.Fatal(err)
	}
	if len(found.Claims) != len(claims) {
		b.t.Fatalf("of the claims %v only %d are judged", claims, len(found.Claims))
	}
	return found.Claims
}

// pid is the process of a component.
func (b *bench) pid(component string) int {
	b.t.Helper()
	var record struct{ PID int }
	text := read(b.t, filepath.Join(b.plane().Dir(), "run", component+".json"))
	if err := json.Unmarshal([]byte(text), &record); err != nil {
		b.t.Fatal(err)
	}
	return record.PID
}

// descendants lists the processes that a process has started, and those that they have.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		raw, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(raw)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), descendants(t, child)...)
			}
		}
	}
	slices.Sort(all)
	return all
}
