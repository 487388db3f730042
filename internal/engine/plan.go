package engine

import (
	"errors"
	"fmt"
	"slices"
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
			id, milestone, early := strings.Cut(need, "/")
			at, known := index[id]
			if !known || early && !slices.Contains(p.Steps[at].Milestones, milestone) {
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
			if found := visit(index[NeededStep(need)]); found != nil {
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

// NeededStep is the ID of the step that an entry of Needs names.
func NeededStep(need string) string {
	id, _, _ := strings.Cut(need, "/")
	return id
}

// infos describes the plan's steps. Milestones are left out: a step is shown as needing the step that reaches them.
func (p Plan) infos() []StepInfo {
	infos := make([]StepInfo, len(p.Steps))
	for i, s := range p.Steps {
		infos[i] = StepInfo{ID: s.ID, Title: s.Title, Needs: s.neededSteps()}
	}
	return infos
}

// neededSteps lists the IDs of the steps that a step needs, each once.
func (s Step) neededSteps() []string {
	var ids []string
	for _, need := range s.Needs {
		if id := NeededStep(need); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// graph says which steps wait for which, by index into the plan's steps.
type graph struct {
	// before[i] are the steps that must be visited before i; after[i] are those that i comes before.
	before, after [][]int
	// early are the milestones of before: early[i][j] is enough of step before[i][j], or empty.
	early [][]string
}

// forward orders steps by their needs; backward is the reverse order, for Undo, where milestones mean nothing.
func (p Plan) forward() graph {
	index := make(map[string]int, len(p.Steps))
	for i, s := range p.Steps {
		index[s.ID] = i
	}
	n := len(p.Steps)
	g := graph{before: make([][]int, n), after: make([][]int, n), early: make([][]string, n)}
	for i, s := range p.Steps {
		for _, need := range s.Needs {
			id, milestone, _ := strings.Cut(need, "/")
			g.before[i] = append(g.before[i], index[id])
			g.early[i] = append(g.early[i], milestone)
			g.after[index[id]] = append(g.after[index[id]], i)
		}
	}
	return g
}

func (g graph) backward() graph { return graph{before: g.after, after: g.before} }
