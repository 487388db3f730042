//go:build e2e

package embedded

import (
	"os"
	"testing"

	"ambientlab/internal/cluster"
)

// TestTwenty makes and deletes a control plane twenty times: no process, port, file or kubeconfig entry may be left.
func TestTwenty(t *testing.T) {
	e := newLab(t, "twenty")
	for range 20 {
		create(t, e)
		state, err := e.load()
		if err != nil {
			t.Fatal(err)
		}
		var running []record
		for _, name := range baseComponents() {
			known, err := e.record(name)
			if err != nil {
				t.Fatal(err)
			}
			running = append(running, known)
		}
		if err := e.Delete(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantState(t, e, cluster.Absent)
		for _, known := range running {
			if known.alive() {
				t.Errorf("process %d still runs", known.PID)
			}
		}
		for name, port := range state.Ports {
			if taken(port) {
				t.Errorf("port %s is still taken", name)
			}
		}
		if _, err := os.Stat(e.opts.StateDir); !os.IsNotExist(err) {
			t.Errorf("files are left: %v", err)
		}
		if e.kubeconfig().Linked(e.ContextName(), state.server()) {
			t.Error("the kubeconfig still has the entry")
		}
	}
}
