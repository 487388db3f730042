package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

func TestPreviewChangesNothing(t *testing.T) {
	w := newWorld("cluster")
	noServer := func(context.Context) (engine.Status, error) {
		return engine.Status{}, errors.New("connection refused")
	}
	apps := w.step("apps", 0, "cluster")
	apps.Preview = func(context.Context) ([]engine.Change, error) {
		return []engine.Change{{Object: "Deployment appa", Action: engine.Create}}, nil
	}
	apps.Explain = func() []string { return []string{"kubectl apply -f apps.yaml"} }
	blocked := engine.Step{ID: "waypoint", Title: "Waypoint", Needs: []string{"apps"}, Check: noServer}
	broken := engine.Step{ID: "broken", Title: "Broken", Needs: []string{"cluster"}, Check: noServer}
	rec := &recorder{}
	e := engine.Engine{Sink: rec}
	p := plan(w.step("cluster", 0), apps, blocked, broken)

	previews, err := e.Preview(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "unchanged", previews[0].Status.Done, true)
	want(t, "changes", previews[1].Changes, []engine.Change{{Object: "Deployment appa", Action: engine.Create}})
	want(t, "a change", previews[1].Changes[0].String(), "create Deployment appa")
	labels := engine.Change{Object: "Service appb", Action: engine.Update, Detail: "labels"}
	want(t, "a change with a detail", labels.String(), "update Service appb (labels)")
	want(t, "explain", previews[1].Explain, []string{"kubectl apply -f apps.yaml"})
	want(t, "blocked", previews[2].Blocked, true)
	want(t, "blocked by", previews[2].Status.Message, `needs "APPS", which is not done yet`)
	want(t, "error of its own", fmt.Sprint(previews[3].Err), "checking Broken: connection refused")

	statuses := e.Inspect(t.Context(), p)
	want(t, "inspect", statuses[2].Blocked, true)
	want(t, "done", len(w.log), 0)
	want(t, "events", len(rec.lines), 0)
}

func TestPreviewOfAnEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var e engine.Engine
	_, err := e.Preview(ctx, plan(engine.Step{ID: "a"}))
	want(t, "exit code", problem.ExitCode(err), problem.Interrupted.Exit())
}

func TestValidate(t *testing.T) {
	for name, tc := range map[string]struct {
		plan engine.Plan
		want string
	}{
		"good":  {plan(engine.Step{ID: "a"}, engine.Step{ID: "b", Needs: []string{"a"}}), "<nil>"},
		"no id": {plan(engine.Step{Title: "A"}), `plan p: step 1 ("A") has no ID`},
		"twice": {plan(engine.Step{ID: "a"}, engine.Step{ID: "a"}), `plan p: two steps have the ID "a"`},
		"unknown": {
			plan(engine.Step{ID: "a", Needs: []string{"x"}}),
			`plan p: step "a" needs "x", which is not in the plan`,
		},
		"cycle": {
			plan(
				engine.Step{ID: "z"}, engine.Step{ID: "a", Needs: []string{"z", "c"}},
				engine.Step{ID: "b", Needs: []string{"a"}}, engine.Step{ID: "c", Needs: []string{"b"}},
			), "plan p: steps need each other in a cycle: a -> c -> b -> a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, "error", fmt.Sprint(tc.plan.Validate()), tc.want)
			var e engine.Engine
			_, err := e.Apply(t.Context(), tc.plan)
			want(t, "apply refuses", err != nil, tc.want != "<nil>")
		})
	}
}
