//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ambientlab/internal/docker"
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/node"
)

var gateways = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}

// TestLab walks through the whole lab on one cluster, as the README does. Each part stands on the one before it.
func TestLab(t *testing.T) {
	l := newLab(t, "lab-e2e")
	before := l.leaks(t)
	t.Cleanup(func() {
		if t.Failed() {
			l.dump(t)
		}
		l.try(t, "sm:delete")
	})

	install := l.mage(t, "sm:install")
	t.Run("installing again changes nothing", func(t *testing.T) {
		versions := l.resourceVersions(t)
		again := l.mage(t, "sm:install")
		if after := l.resourceVersions(t); !sameVersions(t, versions, after) {
			t.Error("a second install changed objects")
		}
		if !strings.Contains(again.stderr, "no changes") {
			t.Error("a second install does not say `no changes`")
		}
		t.Logf("install %s, again %s, %d objects", install.took, again.took, len(versions))
	})
	t.Run("the certificate of MetalLB's webhook comes late", l.testLateCertificate)
	t.Run("inotify limits on every node", l.testInotify)
	t.Run("substitutes are named", func(t *testing.T) {
		for _, image := range []string{"istio/ztunnel", "istio/proxyv2"} {
			if !strings.Contains(install.stderr, "substitute: docker.io/"+image) {
				t.Errorf("the install does not say that %s is a substitute", image)
			}
		}
	})

	l.mage(t, "sm:apps")
	ip := l.gatewayAddress(t)
	t.Run("the gateway answers from the host and from a node", func(t *testing.T) {
		if status, _, _ := get(t, http.MethodGet, ip, "/headers"); status != http.StatusOK {
			t.Errorf("GET through the gateway from this host: %d, want 200", status)
		}
		nodes, err := node.List(t.Context(), l.docker, l.name)
		if err != nil {
			t.Fatal(err)
		}
		out, err := docker.Exec(t.Context(), l.docker, nodes[len(nodes)-1].ContainerID, "curl", "-s", "-o", "/dev/null",
			"-w", "%{http_code}", "-H", "Host: appb.opssec.in", "http://"+ip+"/headers")
		if err != nil || strings.TrimSpace(out) != "200" {
			t.Errorf("GET through the gateway from node %s: %q, %v", nodes[len(nodes)-1].Name, out, err)
		}
	})

	waypoint := l.mage(t, "sm:waypoint")
	if !strings.Contains(waypoint.stdout, "ADDRESS") {
		t.Error("sm:waypoint does not print listeners")
	}
	t.Run("proxyConfig prints what istioctl prints", l.testAsIstioctl)
	fault := l.mage(t, "sm:fault")
	t.Run("half of the requests to /headers take two seconds", func(t *testing.T) {
		slow, total := l.countSlow(t, ip, "/headers", 40)
		t.Logf("%d of %d requests took 2 s or more; sm:fault took %s", slow, total, fault.took)
		// P(fewer than 8 or more than 32 of 40 at one half) is 2.1e-5 on each side.
		if slow < 8 || slow > 32 {
			t.Errorf("%d of %d were delayed, want about half", slow, total)
		}
		if slow, _ := l.countSlow(t, ip, "/ip", 10); slow != 0 {
			t.Errorf("%d requests to another path were delayed", slow)
		}
	})

	l.mage(t, "sm:authz")
	t.Run("only GET, and only by who is allowed", func(t *testing.T) {
		expect(t, ip, http.MethodGet, "/ip", http.StatusOK, "")
		expect(t, ip, http.MethodPost, "/post", http.StatusForbidden, "RBAC: access denied")
		l.mage(t, "sm:authz", "-without=gateway-istio")
		expect(t, ip, http.MethodGet, "/ip", http.StatusForbidden, "RBAC: access denied")
		l.mage(t, "sm:authz")
		expect(t, ip, http.MethodGet, "/ip", http.StatusOK, "")
	})

	t.Run("appa, taken out of the policy and put back", l.testTakenOut)
	t.Run("attached to the waypoint, the lab gets its access log alone", func(t *testing.T) { l.testAttached(t, ip) })

	report := os.Getenv("E2E_REPORT")
	if report == "" {
		report = t.TempDir()
	}
	l.mage(t, "sm:telemetry")
	verify := l.verified(t, "-out="+report)
	for _, id := range []string{
		"prometheus-targets", "prometheus-edges", "prometheus-denied", "prometheus-delayed", "jaeger-trace",
		"jaeger-requests", "jaeger-denied", "jaeger-delayed",
	} {
		if !strings.Contains(verify.stdout, id) {
			t.Errorf("sm:verify makes no claim %s", id)
		}
	}
	l.mage(t, "sm:telemetry", "-off")
	t.Logf("sm:verify:\n%s", verify.stdout)
	for _, bad := range []string{"refuted", "inconclusive"} {
		if strings.Contains(verify.stdout, " "+bad+" ") {
			t.Errorf("a claim came out %s", bad)
		}
	}
	t.Run("the control of the whole: appa out of the mesh", l.testUnmeshedControl)
	t.Run("with the strict policies too", func(t *testing.T) {
		l.mage(t, "sm:authz", "-strict")
		verify := l.verified(t)
		t.Logf("sm:verify:\n%s", verify.stdout)
	})
	t.Run("status", func(t *testing.T) {
		status := l.mage(t, "sm:status")
		t.Logf("sm:status:\n%s", status.stdout)
		for _, wrong := range notReady(status.stdout) {
			t.Error("not ready: " + wrong)
		}
		// A machine that is slow enough makes a liveness probe fail. Which pod it was is worth to know.
		for _, row := range restarted(status.stdout) {
			t.Log("restarted on its own: " + row)
		}
	})

	t.Run("every lesson can be taken back", func(t *testing.T) {
		left := lesson.States(lesson.Apps(), lesson.Waypoint(), lesson.Fault(params.DefaultFault()))
		l.mage(t, "sm:authz", "-off")
		l.proven(t, left, "authz-off-post", "authz-off-outsider")
		expect(t, ip, http.MethodPost, "/post", http.StatusOK, "")
		l.mage(t, "sm:fault", "-off")
		left = lesson.States(lesson.Apps(), lesson.Waypoint())
		l.proven(t, left, "fault-off-appa", "fault-off-gateway")
		if slow, _ := l.countSlow(t, ip, "/headers", 10); slow != 0 {
			t.Errorf("%d requests were delayed with the fault off", slow)
		}
		t.Run("the lessons that sm:lab leaves out", l.testFurtherLessons)
		l.mage(t, "sm:waypoint", "-off")
		left = lesson.States(lesson.Apps())
		l.proven(t, left, "waypoint-off")
		expect(t, ip, http.MethodGet, "/headers", http.StatusOK, "")
		l.mage(t, "sm:apps", "-off")
		kube, _ := l.kube(t)
		services, err := kube.CoreV1().Services("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, service := range services.Items {
			if service.Name != "kubernetes" {
				t.Errorf("Service %s is left", service.Name)
			}
		}
	})

	l.mage(t, "sm:delete")
	if after := l.leaks(t); after != before {
		t.Errorf("before the lab there was %s, after it there is %s", before, after)
	}
}

// notReady lists the rows of a status table whose state is anything but ready: not ready, unknown, not running, off, or
// a word that did not exist when this was written. A table without rows is not ready either.
func notReady(table string) []string {
	var rows []string
	header, body, _ := strings.Cut(table, "\n")
	at := strings.Index(header, "STATE")
	if at < 0 || strings.TrimSpace(body) == "" {
		return []string{"this is no table: " + table}
	}
	for row := range strings.Lines(body) {
		state, _, _ := strings.Cut(string([]rune(row)[min(at, len([]rune(row))):]), "   ")
		state = strings.TrimSpace(state)
		// Only the lessons that sm:lab leaves out may be off.
		extra := slices.ContainsFunc(lesson.All(), func(l lesson.Lesson) bool {
			return l.Extra && strings.HasPrefix(row, "lesson "+l.Name+" ")
		})
		if state != "ready" && state != "on, ready" && state != "restarted" && (!extra || state != "off") {
			rows = append(rows, strings.TrimSpace(row))
		}
	}
	return rows
}

// restarted lists the rows of a status table about containers that ended and run again.
func restarted(table string) []string {
	return slices.DeleteFunc(slices.Collect(strings.Lines(table)),
		func(row string) bool { return !strings.Contains(row, "   restarted   ") })
}

func expect(t *testing.T, ip, method, path string, status int, body string) {
	t.Helper()
	got, text, took := get(t, method, ip, path)
	if got != status || (body != "" && text != body) {
		t.Errorf("%s %s: %d %q, want %d %q", method, path, got, text, status, body)
	}
	if status == http.StatusForbidden && took > time.Second {
		t.Errorf("%s %s was denied after %s, want at once", method, path, took)
	}
}

// countSlow sends n requests side by side and counts those that took two seconds or more.
func (l *lab) countSlow(t *testing.T, ip, path string, n int) (slow, total int) {
	t.Helper()
	times := make(chan time.Duration, n)
	for range n {
		go func() {
			_, _, took := get(t, http.MethodGet, ip, path)
			times <- took
		}()
	}
	for range n {
		if <-times >= 2*time.Second {
			slow++
		}
	}
	return slow, n
}

func (l *lab) gatewayAddress(t *testing.T) string {
	t.Helper()
	_, objects := l.kube(t)
	gateway, err := objects.Resource(gateways).Namespace("default").Get(t.Context(), "gateway", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ip := address(gateway)
	if ip == "" {
		t.Fatal("the Gateway has no address")
	}
	return ip
}

func (l *lab) testInotify(t *testing.T) {
	nodes, err := node.List(t.Context(), l.docker, l.name)
	if err != nil {
		t.Fatal(err)
	}
	if len(nodes) != 3 {
		t.Errorf("%d nodes, want 3", len(nodes))
	}
	results, err := node.Check(t.Context(), l.docker, nodes, node.Inotify())
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range results {
		t.Log(fmt.Sprint(result))
		if !result.Holds() {
			t.Errorf("%v is too low", result)
		}
	}
}
