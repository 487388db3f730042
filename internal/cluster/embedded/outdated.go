package embedded

import (
	"context"
	"sync"
)

// builds remembers where today's sources put each program. Finding that out runs the Go command, which is too slow for
// every look at a lab.
type builds struct {
	mu       sync.Mutex
	programs Programs
	paths    map[string]string
}

// today gives where a component's program is, or would be, built from today's sources; empty where that cannot be told,
// because the sources or the Go command are not at hand.
func (e *Embedded) today(ctx context.Context, component string) string {
	e.builds.mu.Lock()
	defer e.builds.mu.Unlock()
	if path, known := e.builds.paths[component]; known {
		return path
	}
	if e.builds.programs == nil {
		programs, err := e.opts.Programs(func(string, string) {})
		if err != nil {
			return ""
		}
		e.builds.programs, e.builds.paths = programs, map[string]string{}
	}
	path, err := e.builds.programs.Path(ctx, program(component))
	if err != nil {
		return ""
	}
	e.builds.paths[component] = path
	return path
}

// isOld tells whether a component runs another build than today's sources make.
func (e *Embedded) isOld(ctx context.Context, component string, known record) bool {
	path := e.today(ctx, component)
	return path != "" && path != known.Path
}

// outdated names the base components that run another build than today's sources make.
func (e *Embedded) outdated(ctx context.Context) []string {
	var old []string
	for _, name := range baseComponents() {
		if known, err := e.record(name); err == nil && e.isOld(ctx, name, known) {
			old = append(old, name)
		}
	}
	return old
}
