package embedded

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
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

// outdated names the base components, and the programs of pods, that are another build than today's sources make.
func (e *Embedded) outdated(ctx context.Context) []string {
	var old []string
	for _, name := range baseComponents() {
		if known, err := e.record(name); err == nil && e.isOld(ctx, name, known) {
			old = append(old, name)
		}
	}
	for _, path := range e.runnerFiles() {
		name := filepath.Base(path)
		if today := e.today(ctx, name); today != "" && today != path && !slices.Contains(old, name) {
			old = append(old, name)
		}
	}
	return old
}

// runnerFiles lists the files that the pod runner's configuration puts into containers.
func (e *Embedded) runnerFiles() []string {
	raw, err := os.ReadFile(filepath.Join(e.dir, runnerConfig))
	if err != nil {
		return nil
	}
	var settings runnerSettings
	if err := json.Unmarshal(raw, &settings); err != nil {
		return nil
	}
	var paths []string
	for _, image := range settings.Images {
		for _, file := range image.Files {
			if s, err := e.load(); err == nil && file.Source != s.Ztunnel {
				paths = append(paths, file.Source)
			}
		}
	}
	return paths
}
