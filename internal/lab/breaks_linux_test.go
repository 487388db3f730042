package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ambientlab/internal/lesson"
	"ambientlab/internal/probe"
	"ambientlab/internal/sabotage"
	"ambientlab/internal/workshop"
)

// byKubectl is how a learner fixes each fault with kubectl.
func byKubectl() map[string][]string {
	return map[string][]string{
		"no-ztunnel": {
			"patch", "daemonset", "ztunnel", "--namespace=istio-system", "--type=json",
			`-p=[{"op":"remove","path":"/spec/template/spec/nodeSelector/lab.opssec.in~1no-such-node"}]`,
		},
		"ingress-label":           {"label", "service", "appb", "istio.io/ingress-use-waypoint=true"},
		"waypoint-scaled-to-zero": {"scale", "deployment", "appb-waypoint", "--replicas=1"},
		"delay-for-another-host": {
			"patch", "virtualservice", "appb-delay", "--type=merge",
			`-p={"spec":{"hosts":["appb.default.svc.cluster.local"]}}`,
		},
		"another-percentage": {
			"patch", "virtualservice", "appb-delay", "--type=json",
			`-p=[{"op":"replace","path":"/spec/http/0/fault/delay/percentage/value","value":50}]`,
		},
		"policy-with-selector": {
			"patch", "authorizationpolicy", "appb-get-only", "--type=merge",
			`-p={"spec":{"selector":null,"targetRefs":[{"group":"","kind":"Service","name":"appb"}]}}`,
		},
		"second-policy": {"delete", "authorizationpolicy", "appb-allow-everything"},
		"permissive": {
			"patch", "peerauthentication", "strict", "--type=merge", `-p={"spec":{"mtls":{"mode":"STRICT"}}}`,
		},
	}
}

// TestBreaks looks for faults as a learner does: the symptom is shown and the cause is not, hints come one at a time, a
// fix with kubectl is noticed, and -off restores the lab.
func TestBreaks(t *testing.T) {
	b := newBench(t, "breaks-test", "SM_PACKETS=on", "SM_ADDONS=none")
	b.installOrSkip()
	b.do("apps", b.apps)
	b.do("waypoint", b.waypoint)
	b.do("fault", b.fault)
	b.do("authz", func(ctx context.Context) error { return b.Authz(ctx, "", true, false) })
	l := newWorkshopLab(b.Env, "none")
	e, err := workshop.New(typing{l, b}, l.feed, lesson.Claims(), filepath.Join(t.TempDir(), "notes.json"), "mage")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := e.Open(ctx); err != nil {
		t.Fatal(err)
	}
	page, err := workshop.NewPage(ctx, e, l.feed)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for _, run := range []func(context.Context){
		e.Run, l.feed.Run,
		func(ctx context.Context) {
			if err := page.Serve(ctx); err != nil {
				t.Error(err)
			}
		},
	} {
		running.Go(func() { run(ctx) })
	}
	defer running.Wait()
	defer stop()
	s := search{b, e, page, b.kubectl(), l.feed}
	for i, way := range sabotage.All() {
		if everyBreak || slices.Contains([]string{"ingress-label", "policy-with-selector"}, way.Name) {
			s.fixed(i+1, way)
		}
		if everyBreak || way.Name == "waypoint-scaled-to-zero" {
			s.givenUp(i+1, way)
		}
	}
	defer l.feed.Pause(ctx)()
	b.proven("waypoint-gateway", "fault-gateway", "authz-post-gateway", "direct-closed", "unmeshed-closed")
}

// typing is a workshop's lab whose commands are run by the test itself.
type typing struct {
	*workshopLab
	b *bench
}

// Type implements workshop.Lab.
func (y typing) Type(ctx context.Context, command string, _ func(string)) error {
	switch command {
	case "mage sm:install":
		return y.b.Install(ctx)
	case "mage sm:waypoint":
		return y.b.waypoint(ctx)
	case "mage sm:fault -percent=50 -delay=2s -path=/headers -exact=false":
		return y.b.fault(ctx)
	case "mage sm:authz -strict=true":
		return y.b.Authz(ctx, "", true, false)
	}
	return fmt.Errorf("the test does not know %q", command)
}

// search is a learner's search for a fault.
type search struct {
	b       *bench
	e       *workshop.Engine
	page    *workshop.Page
	kubectl func(args ...string) *exec.Cmd
	feed    *workshop.Feed
}

// fixed puts a fault in, and fixes it with kubectl.
func (s search) fixed(number int, way sabotage.Sabotage) {
	s.b.t.Helper()
	began := time.Now()
	before := s.symptom(number, way)
	symptom := time.Since(began)
	for n := 1; n <= 3; n++ {
		if err := s.e.Hint(); err != nil {
			s.b.t.Fatalf("%s: %v", way.Name, err)
		}
		if hints := s.e.View().Hints; len(hints) != n {
			s.b.t.Errorf("%s: hint %d was asked for, and there are %q", way.Name, n, hints)
		}
		if n < 3 {
			before += s.shown()
		}
	}
	s.until(way.Name+": the third hint is the cause", func(v workshop.View) bool {
		return strings.Contains(v.Hints[2], way.Cause)
	})
	cause := s.e.View().Hints[2]
	for _, secret := range []string{way.Name, way.Title, cause} {
		if strings.Contains(before, secret) {
			s.b.t.Errorf("%s: %q is shown before the third hint", way.Name, secret)
		}
	}
	if out, err := s.kubectl(byKubectl()[way.Name]...).CombinedOutput(); err != nil {
		s.b.t.Fatalf("%s: kubectl: %v: %s", way.Name, err, out)
	}
	mended := time.Now()
	s.until(way.Name+": the fix is noticed", func(v workshop.View) bool { return v.Done })
	if after := s.shown(); !strings.Contains(after, way.Title) || !strings.Contains(after, "with 3 hints") {
		s.b.t.Errorf("%s: name and hints are not told once it is fixed:\n%s", way.Name, after)
	}
	s.b.t.Logf("%s: symptom %s after the change, claims proven %s after the fix", way.Name,
		symptom.Round(100*time.Millisecond), time.Since(mended).Round(100*time.Millisecond))
	if err := s.e.Next(); err != nil {
		s.b.t.Fatalf("%s: %v", way.Name, err)
	}
}

// givenUp puts a fault in, and restores the lab.
func (s search) givenUp(number int, way sabotage.Sabotage) {
	s.b.t.Helper()
	s.symptom(number, way)
	if err := s.e.Restore(s.b.t.Context()); err != nil {
		s.b.t.Fatalf("%s: %v", way.Name, err)
	}
	if v := s.e.View(); v.Broken || !strings.Contains(v.Told, way.Title) {
		s.b.t.Errorf("%s: restored, and told %q", way.Name, v.Told)
	}
	// Requests of the workshop would make the measurement inconclusive.
	s.until(way.Name+": the check of the station has ended", func(v workshop.View) bool {
		return v.Report != nil && v.Checking == ""
	})
	defer s.feed.Pause(s.b.t.Context())()
	s.b.proven(way.Claims...)
}

// symptom puts a fault in and waits until a claim does not hold. It gives what is shown then.
func (s search) symptom(number int, way sabotage.Sabotage) string {
	s.b.t.Helper()
	if err := s.e.Break(s.b.t.Context(), number); err != nil {
		s.b.t.Fatalf("%s: %v", way.Name, err)
	}
	s.until(way.Name+": a claim does not hold", func(v workshop.View) bool {
		return v.Broken && !v.Done && v.Report != nil && !v.Report.Proven()
	})
	if s.e.View().Report.Count(probe.Refuted)+s.e.View().Report.Count(probe.Inconclusive) == 0 {
		s.b.t.Errorf("%s: no claim is shown that does not hold", way.Name)
	}
	return s.shown()
}

// shown is what both surfaces show: the plain text of the terminal, the page, its report and its tabs.
func (s search) shown() string {
	s.b.t.Helper()
	var all bytes.Buffer
	if err := workshop.Print(&all, s.e.View()); err != nil {
		s.b.t.Fatal(err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.b.t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	base, _, _ := strings.Cut(s.page.Address(), "?")
	for _, address := range []string{s.page.Address(), base + "report", base + "tab/yaml", base + "tab/commands"} {
		response, err := client.Get(address)
		if err != nil {
			s.b.t.Fatal(err)
		}
		_, err = io.Copy(&all, response.Body)
		_ = response.Body.Close()
		if err != nil {
			s.b.t.Fatal(err)
		}
	}
	return all.String()
}

// until waits until the view is as wanted.
func (s search) until(what string, so func(workshop.View) bool) {
	s.b.t.Helper()
	for deadline := time.After(3 * time.Minute); ; {
		changed := s.e.Changed()
		v := s.e.View()
		if so(v) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			s.b.t.Fatalf("%s: not within three minutes; %+v", what, v)
		}
	}
}
