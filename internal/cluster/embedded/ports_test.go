package embedded

import (
	"runtime"
	"sync"
	"testing"
)

// Eight labs choose their ports at the same time, a thousand times, before any of them listens. No two choose the same.
func TestPortsOfRacingLabs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has sockets with abstract names, by which labs claim ports before they listen")
	}
	for round := range 1000 {
		var mu sync.Mutex
		owner := map[int]int{}
		var labs sync.WaitGroup
		var held []func()
		for lab := range 8 {
			labs.Go(func() {
				ports, claims, err := freePorts(portNames())
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
					return
				}
				held = append(held, func() { release(claims) })
				for name, port := range ports {
					if other, chosen := owner[port]; chosen {
						t.Errorf("round %d: labs %d and %d have port %d (%s)", round, other, lab, port, name)
					}
					owner[port] = lab
				}
			})
		}
		labs.Wait()
		for _, free := range held {
			free()
		}
		if t.Failed() {
			return
		}
	}
}
