package engine

import "slices"

// walk visits every step of a graph, each in a goroutine of its own and as soon as
// all steps before it were visited, and returns when all were. Where several could
// start, the plan's order decides. parallel bounds how many visits run at once; 0
// means no bound. Whether a step is really run, or only noted as cancelled, is for
// visit to decide.
func walk(g graph, parallel int, visit func(i int)) {
	n := len(g.before)
	waiting := make([]int, n)
	var ready []int
	for i := range n {
		waiting[i] = len(g.before[i])
		if waiting[i] == 0 {
			ready = append(ready, i)
		}
	}
	visited := make(chan int)
	running := 0
	for left := n; left > 0; left-- {
		for len(ready) > 0 && (parallel <= 0 || running < parallel) {
			i := ready[0]
			ready = ready[1:]
			running++
			go func() {
				visit(i)
				visited <- i
			}()
		}
		i := <-visited
		running--
		for _, next := range g.after[i] {
			if waiting[next]--; waiting[next] == 0 {
				at, _ := slices.BinarySearch(ready, next)
				ready = slices.Insert(ready, at, next)
			}
		}
	}
}
