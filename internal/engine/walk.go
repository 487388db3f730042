package engine

import "sync"

// progress says which steps were visited, and which milestones they have reached.
type progress struct {
	visited []chan struct{} // closed once the step was visited

	mu      sync.Mutex
	reached map[milestone]chan struct{} // closed once the milestone is reached
}

type milestone struct {
	step int
	name string
}

func newProgress(steps int) *progress {
	p := &progress{visited: make([]chan struct{}, steps), reached: make(map[milestone]chan struct{})}
	for i := range p.visited {
		p.visited[i] = make(chan struct{})
	}
	return p
}

// gate gives the channel that is closed when a step has reached a milestone.
func (p *progress) gate(step int, name string) chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := milestone{step, name}
	if p.reached[key] == nil {
		p.reached[key] = make(chan struct{})
	}
	return p.reached[key]
}

// reach notes that a step has reached a milestone. It is called by one goroutine at a time for each step.
func (p *progress) reach(step int, name string) {
	gate := p.gate(step, name)
	select {
	case <-gate:
	default:
		close(gate)
	}
}

// walk visits every step of a graph and returns when all were visited. Each step is visited in its own goroutine, as
// soon as all steps before it were, or have reached the milestone that it waits for. visit decides whether a step is
// run or only noted as cancelled.
func walk(g graph, p *progress, visit func(i int)) {
	var steps sync.WaitGroup
	for i := range p.visited {
		steps.Go(func() {
			defer close(p.visited[i])
			for j, before := range g.before[i] {
				if g.early == nil || g.early[i][j] == "" {
					<-p.visited[before]
					continue
				}
				select {
				case <-p.visited[before]:
				case <-p.gate(before, g.early[i][j]):
				}
			}
			visit(i)
		})
	}
	steps.Wait()
}
