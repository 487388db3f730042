package lab

import (
	"context"
	"testing"

	"ambientlab/internal/engine"
)

// TestTwice: a node that joins while a step waits for its pods is waited for too.
func TestTwice(t *testing.T) {
	nodes, ready := 1, 0
	step := engine.Step{
		ID:    "daemons",
		Check: func(context.Context) (engine.Status, error) { return engine.Status{Done: ready == nodes}, nil },
		Do: func(context.Context) error {
			ready = nodes
			return nil
		},
	}
	join := func(context.Context) error {
		nodes = 3
		return nil
	}
	plan := engine.Plan{Name: "p", Steps: []engine.Step{twice(step, join)}}
	result, err := (&engine.Engine{}).Apply(t.Context(), plan)
	if err != nil || ready != 3 {
		t.Errorf("ready on %d nodes, %v, %v", ready, err, result)
	}
}
