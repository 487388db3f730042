package engine

import (
	"errors"
	"fmt"
	"strings"
)

// Validate says whether the plan can be run: every step has an ID that no other step has, every need is a step of the
// plan, and no step needs itself by any path. The error joins all faults.
func (p Plan) Validate() error {
	var faults []error
	index := make(map[string]int, len(p.Steps))
	for i, s := range p.Steps {
		if s.ID == "" {
			faults = append(faults, fmt.Errorf("step %d (%q) has no ID", i+1, s.Title))
			continue
		}
		if _, taken := index[s.ID]; taken {
			faults = append(faults, fmt.Errorf("two steps have the ID %q", s.ID))
			continue
		}
		index[s.ID] = i
	}
	for _, s := range p.Steps {
		for _, need := range s.Needs {
			if _, known := index[need]; !known {
				faults = append(faults, fmt.Errorf("step %q needs %q, which is not in the plan", s.ID, need))
			}
		}
	}
	if len(faults) == 0 {
		if cycle := p.cycle(index); cycle != nil {
			faults = append(faults, fmt.Errorf("steps need each other in a cycle: %s", strings.Join(cycle, " -> ")))
		}
	}
	if len(faults) > 0 {
		return fmt.Errorf("plan %s: %w", p.Name, errors.Join(faults...))
	}
	return nil
}

// cycle returns one cycle of needs, its first step repeated at the end, or nil.
func (p Plan) cycle(index map[string]int) []string {
	const (
		unseen = iota
		onPath
		finished
	)
	state := make([]int, len(p.Steps))
	var path []string
	var visit func(i int) []string
	visit = func(i int) []string {
		id := p.Steps[i].ID
		switch state[i] {
		case finished:
			return nil
		case onPath:
			for at, seen := range path {
				if seen == id {
					return append(append([]string{}, path[at:]...), id)
				}
			}
		}
		state[i] = onPath
		path = append(path, id)
		for _, need := range p.Steps[i].Needs {
			if found := visit(index[need]); found != nil {
				return found
			}
		}
		path = path[:len(path)-1]
		state[i] = finished
		return nil
	}
	for i := range p.Steps {
		if found := visit(i); found != nil {
			return found
		}
	}
	return nil
}

// infos describes the plan's steps.
func (p Plan) infos() []StepInfo {
	infos := make([]StepInfo, len(p.Steps))
	for i, s := range p.Steps {
		infos[i] = StepInfo{ID: s.ID, Title: s.Title, Needs: s.Needs}
	}
	return infos
}

// graph says which steps wait for which, by index into the plan's steps.
type graph struct {
	// before[i] are the steps that must be visited before i; after[i] are those that i comes before.
	before, after [][]int
}

// forward orders steps by their needs; backward is the reverse order, for Undo.
func (p Plan) forward() graph {
	index := make(map[string]int, len(p.Steps))
	for i, s := range p.Steps {
		index[s.ID] = i
	}
	g := graph{before: make([][]int, len(p.Steps)), after: make([][]int, len(p.Steps))}
	for i, s := range p.Steps {
		for _, need := range s.Needs {
			g.before[i] = append(g.before[i], index[need])
			g.after[index[need]] = append(g.after[index[need]], i)
		}
	}
	return g
}

func (g graph) backward() graph { return graph{before: g.after, after: g.before} }
