package engine

import "sync"

// walk visits every step of a graph and returns when all were visited. Each step is visited in its own goroutine, as
// soon as all steps before it were. visit decides whether a step is run or only noted as cancelled.
func walk(g graph, visit func(i int)) {
	visited := make([]chan struct{}, len(g.before))
	for i := range visited {
		visited[i] = make(chan struct{})
	}
	var steps sync.WaitGroup
	for i := range visited {
		steps.Go(func() {
			defer close(visited[i])
			for _, before := range g.before[i] {
				<-visited[before]
			}
			visit(i)
		})
	}
	steps.Wait()
}
