package embedded

import (
	"strings"
	"testing"
)

// TestLoopback wants every address that a component is told to listen on to be on loopback.
func TestLoopback(t *testing.T) {
	e := plain(t)
	s, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	var all []process
	for _, name := range baseComponents() {
		all = append(all, e.component(s, name, name))
	}
	for _, w := range workloads() {
		all = append(all, e.workload(s, w.component, w.component, settings{}))
	}
	for _, p := range all {
		for _, argument := range p.spec.Args {
			if strings.Contains(argument, "0.0.0.0") || strings.Contains(argument, "=:") ||
				strings.Contains(argument, "[::]") {
				t.Errorf("%s: %s", p.spec.Name, argument)
			}
		}
	}
}
