package lab

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/manifest"
	"ambientlab/internal/probe"
	"ambientlab/internal/workshop"
)

// TestWorkshopNotices follows a learner who types YAML: the workshop notices each change, proves the claims of the
// station, shows requests that go around the waypoint, and names the cause.
func TestWorkshopNotices(t *testing.T) {
	b := newBench(t, "workshop-test", "SM_PACKETS=on", "SM_ADDONS=none")
	b.installOrSkip()
	b.do("apps", b.apps)
	file := filepath.Join(t.TempDir(), "notes.json")
	l := newWorkshopLab(b.Env, "none")
	e, err := workshop.New(l, l.feed, lesson.Claims(), file, "mage")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.feed.Run(ctx) })
	running.Go(func() { e.Run(ctx) })
	defer running.Wait()
	defer stop()
	told, unlisten := l.feed.Listen()
	defer unlisten()

	began := time.Now()
	until := func(what string, so func(workshop.View) bool) {
		t.Helper()
		for deadline := time.After(2 * time.Minute); ; {
			changed := e.Changed()
			v := e.View()
			if so(v) {
				t.Logf("%s: %s after the change", what, time.Since(began).Round(10*time.Millisecond))
				return
			}
			select {
			case <-changed:
			case <-told: // so that the channel does not fill up
			case <-deadline:
				t.Fatalf("%s: not within two minutes; %+v", what, v)
			}
		}
	}
	done := func(v workshop.View) bool { return v.Done }
	until("the station of the applications is done", func(v workshop.View) bool {
		return v.Station.Name == "apps" && v.Done
	})
	e.Next()
	manual, err := e.Manual(ctx)
	if err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	for _, spec := range manual.Files {
		if spec.Name != "service.yaml" {
			list, err := manifest.Decode([]byte(spec.Text))
			if err != nil {
				t.Fatal(err)
			}
			for _, object := range list {
				object.SetNamespace("default")
				b.createOne(object)
			}
		}
	}
	label := func(text string) {
		t.Helper()
		began = time.Now()
		_, err := b.kube().CoreV1().Services("default").
			Patch(ctx, names.AppB, types.MergePatchType, []byte(text), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	label(`{"metadata":{"labels":{"istio.io/use-waypoint":"appb-waypoint","istio.io/ingress-use-waypoint":"true"}}}`)
	until("the waypoint, made by hand, is proven", done)

	label(`{"metadata":{"labels":{"istio.io/ingress-use-waypoint":null}}}`)
	for r := range told {
		if r.Who == probe.Gateway && r.Way == workshop.Around && r.At.After(began) {
			t.Logf("a request of the gateway goes around the waypoint: told %s after the label was removed",
				time.Since(began).Round(10*time.Millisecond))
			break
		}
	}
	until("the claim about the gateway is refuted", func(v workshop.View) bool {
		return !v.Done && v.Report != nil && v.Report.Count(probe.Refuted) == 1
	})
	for range 3 {
		e.Hint()
	}
	until("the third hint is the cause", func(v workshop.View) bool {
		return len(v.Hints) == 3 && strings.Contains(v.Hints[2], "ingress-use-waypoint")
	})
	label(`{"metadata":{"labels":{"istio.io/ingress-use-waypoint":"true"}}}`)
	until("it is proven again", done)

	manual, err = e.Manual(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"--field-manager=ambientlab -", "--field-manager=ambientlab-enrol", "kind: Gateway",
		"app.kubernetes.io/managed-by: ambientlab",
	} {
		if commands := strings.Join(manual.Commands, "\n"); !strings.Contains(commands, part) {
			t.Errorf("the commands for kubectl do not contain %q:\n%s", part, commands)
		}
	}
	again, err := workshop.New(l, l.feed, lesson.Claims(), file, "mage")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Open(ctx); err != nil {
		t.Fatal(err)
	}
	if name := again.View().Station.Name; name != "fault" {
		t.Errorf("after a restart the station is %s", name)
	}
}
