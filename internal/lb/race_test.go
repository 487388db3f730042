package lb

import (
	"cmp"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/network"

	"ambientlab/internal/docker/dockertest"
)

// TestRaces creates eight labs at the same time, a thousand times, on one network. Each chooses a slot, its containers
// appear up to three seconds later, and it takes its addresses when the cluster is ready, five to thirty seconds after
// that. No two labs take the same address, also where they did not see each other.
func TestRaces(t *testing.T) {
	type event struct {
		at   float64
		what func()
	}
	contested := 0
	for round := range 1000 {
		random := rand.New(rand.NewSource(int64(round)))
		e := &dockertest.Engine{Networks: map[string][]network.IPAMConfig{"kind": ipam("172.18.0.0/16")}}
		pools := map[string]Pool{}
		chosen := map[int]bool{}
		var events []event
		for i := range 8 {
			name := fmt.Sprintf("lab-%02d", random.Intn(90)+i*100)
			slot := 0
			choose := random.Float64() * 12
			appear := choose + 0.2 + random.Float64()*2.8
			take := appear + 5 + random.Float64()*25
			events = append(events,
				event{choose, func() {
					var err error
					if slot, err = Choose(t.Context(), e, "kind"); err != nil {
						t.Fatal(err)
					}
					if chosen[slot] {
						contested++
					}
					chosen[slot] = true
				}},
				event{appear, func() {
					lab(e, name, fmt.Sprintf("172.18.0.%d", i+2), slot, int64(appear))
				}},
				event{take, func() {
					pool, err := find(t, e, name)
					if err != nil {
						t.Fatal(err)
					}
					pools[name] = pool
				}})
		}
		slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
		for _, ev := range events {
			ev.what()
		}
		for a, first := range pools {
			for b, second := range pools {
				if a < b && first.Slot == second.Slot {
					t.Fatalf("round %d: %s and %s have slot %d", round, a, b, first.Slot)
				}
			}
			// What a lab would compute now is what it took: sm:install, run again, changes nothing.
			if again, err := find(t, e, a); err != nil || again.Slot != first.Slot {
				t.Fatalf("round %d: %s took slot %d and now has %d, %v", round, a, first.Slot, again.Slot, err)
			}
		}
	}
	if contested < 1000 {
		t.Errorf("only %d choices were contested", contested)
	}
}
