package trace_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/trace"
)

type sink struct{ events int }

func (s *sink) Handle(engine.Event) { s.events++ }

// TestTrace traces one step that computes and one that waits: their order, and what of their time is what.
func TestTrace(t *testing.T) {
	file, next := filepath.Join(t.TempDir(), "trace.json"), &sink{}
	recording, err := trace.Start(file, next)
	if err != nil {
		t.Fatal(err)
	}
	_, err = (&engine.Engine{Sink: recording}).Apply(t.Context(), engine.Plan{Name: "p", Steps: []engine.Step{
		{ID: "compute", Title: "Computing", Do: func(context.Context) error {
			for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
			}
			return nil
		}},
		{ID: "wait", Title: "Waiting", Needs: []string{"compute"}, Do: func(ctx context.Context) error {
			defer engine.Waiting(ctx)()
			<-time.After(200 * time.Millisecond)
			return nil
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := recording.Close(&table); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(table.String()), "\n"); len(lines) != 3 ||
		!strings.HasPrefix(lines[1], "p/compute") || !strings.HasPrefix(lines[2], "p/wait") {
		t.Errorf("the table is:\n%s", table.String())
	}
	if next.events == 0 {
		t.Error("no event was passed on")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var written struct {
		TraceEvents []struct {
			Name, Ph string
			Dur      float64
			Args     map[string]any
		}
	}
	if err := json.Unmarshal(raw, &written); err != nil {
		t.Fatal(err)
	}
	waited, cpu := map[string]float64{}, map[string]float64{}
	for _, event := range written.TraceEvents {
		if event.Ph == "X" {
			waited[event.Name], cpu[event.Name] = event.Args["waited"].(float64), event.Args["cpu"].(float64)
		}
	}
	if len(waited) != 2 || waited["Waiting"] < 0.2 || waited["Computing"] != 0 {
		t.Errorf("waited: %v", waited)
	}
	if cpu["Computing"] <= cpu["Waiting"] {
		t.Errorf("CPU time: %v", cpu)
	}
}

func TestFileThatCannotBeWritten(t *testing.T) {
	if _, err := trace.Start(filepath.Join(t.TempDir(), "absent", "trace.json"), &sink{}); err == nil {
		t.Error("it is accepted")
	}
}
