package ui

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with testdata/ui/name at the root of the module.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("..", "..", "testdata", "ui", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func environment(pairs ...string) func(string) string {
	vars := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		vars[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return vars[name] }
}

func at(seconds float64) time.Time {
	return time.Date(2026, 11, 23, 6, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

// failure is what the scripted run ends with.
func failure() error {
	pull := problem.New(problem.ImagePull,
		errors.New(`container httpbin: ImagePullBackOff: Back-off pulling image `+
			`"docker.io/mccutchen/go-httpbin:v2.26.0": no route to host`),
		"Deployment default/appb: 0 of 1 available")
	return errors.Join(
		&engine.StepError{
			ID: "apps", Title: "Applications appa and appb",
			Err: fmt.Errorf("waiting for the applications: %w", pull),
		},
		&engine.StepError{ID: "addons", Title: "Addons", Err: errors.New("disk full")},
	)
}

// script is a run with every kind of event: two steps side by side, one that already holds, a failure, a cancellation.
func script() []engine.Event {
	steps := []engine.StepInfo{
		{ID: "kind", Title: "kind cluster ambient"},
		{ID: "tune", Title: "Node tuning", Needs: []string{"kind"}},
		{ID: "istio", Title: "Istio control plane", Needs: []string{"kind"}},
		{ID: "addons", Title: "Addons", Needs: []string{"kind"}},
		{ID: "apps", Title: "Applications appa and appb", Needs: []string{"istio"}},
		{ID: "gateway", Title: "Gateway", Needs: []string{"apps"}},
	}
	title := map[string]string{}
	for _, s := range steps {
		title[s.ID] = s.Title
	}
	err := failure()
	result := &engine.Result{Plan: "install", Duration: 128 * time.Second, Steps: []engine.StepResult{
		{ID: "kind", Title: title["kind"], Outcome: engine.Unchanged},
		{
			ID: "tune", Title: title["tune"], Outcome: engine.Done, Duration: 400 * time.Millisecond,
			Changes: []engine.Change{
				{Object: "sysctl fs.inotify.max_user_instances", Action: engine.Update, Detail: "128 to 1024"},
			},
		},
		{ID: "istio", Title: title["istio"], Outcome: engine.Done, Duration: 72 * time.Second, Changes: []engine.Change{
			{Object: "Deployment istio-system/istiod", Action: engine.Create},
		}},
		{
			ID: "addons", Title: title["addons"], Outcome: engine.Failed, Duration: 127 * time.Second,
			Message: "disk full", Err: errors.New("disk full"),
		},
		{
			ID: "apps", Title: title["apps"], Outcome: engine.Failed, Duration: 55 * time.Second, Message: "no image",
			Err: err,
		},
		{
			ID: "gateway", Title: title["gateway"], Outcome: engine.Canceled,
			Message: `not started: "Applications appa and appb" failed`,
		},
	}}
	step := func(seconds float64, kind engine.EventKind, id, message string, took float64) engine.Event {
		return engine.Event{
			Time: at(seconds), Plan: "install", Kind: kind, Step: id, Title: title[id], Message: message,
			Duration: time.Duration(took * float64(time.Second)),
		}
	}
	changed := func(seconds float64, id string, c engine.Change) engine.Event {
		ev := step(seconds, engine.StepChanged, id, "", 0)
		ev.Change = &c
		return ev
	}
	reason := `waiting for the applications: Deployment default/appb: 0 of 1 available: ` +
		`container httpbin: ImagePullBackOff: ` +
		`Back-off pulling image "docker.io/mccutchen/go-httpbin:v2.26.0": no route to host [LAB-IMAGE-PULL]`
	failed := step(128, engine.StepFailed, "apps", reason, 55)
	failed.Err = err
	return []engine.Event{
		{Time: at(0), Plan: "install", Kind: engine.PlanStarted, Title: "Install the lab", Steps: steps},
		step(0, engine.StepStarted, "kind", "", 0),
		step(0.2, engine.StepUnchanged, "kind", "3 nodes ready", 0.2),
		step(0.2, engine.StepStarted, "tune", "", 0),
		step(0.2, engine.StepStarted, "istio", "", 0),
		step(0.2, engine.StepStarted, "addons", "", 0),
		changed(0.5, "tune",
			engine.Change{
				Object: "sysctl fs.inotify.max_user_instances", Action: engine.Update,
				Detail: "128 to 1024",
			}),
		step(0.6, engine.StepDone, "tune", "", 0.4),
		step(3, engine.StepProgress, "istio",
			"Deployment istio-system/istiod: 0 of 1 available\x1b[2J: ContainerCreating", 0),
		{
			Time: at(4), Plan: "install", Kind: engine.Note,
			Message: "inotify limits are the host's: they stay when the lab is gone",
		},
		step(72.2, engine.StepDone, "istio", "istiod, istio-cni and ztunnel are ready", 72),
		step(73, engine.StepStarted, "apps", "", 0),
		step(127, engine.StepFailed, "addons", "disk full", 127),
		failed,
		step(128, engine.StepCanceled, "gateway", `not started: "Applications appa and appb" failed`, 0),
		{
			Time: at(128), Plan: "install", Kind: engine.PlanFailed, Title: "Install the lab",
			Duration: 128 * time.Second, Err: err, Result: result,
		},
	}
}
