package apply

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestListingsAreShared: a caller shares no listing that began before its call. Callers that ask while one is in
// progress share the next one.
func TestListingsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l listings
		var mu sync.Mutex
		count := 0
		list := func(ctx context.Context) ([]*metav1.PartialObjectMetadata, error) {
			mu.Lock()
			count++
			number := count
			mu.Unlock()
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return make([]*metav1.PartialObjectMetadata, number), nil
		}
		got := make(chan int, 10)
		ask := func(ctx context.Context) {
			found, err := l.get(ctx, list)
			if err != nil {
				got <- -1
				return
			}
			got <- len(found)
		}
		go ask(t.Context())
		synctest.Wait()
		for range 3 {
			go ask(t.Context())
		}
		for _, want := range []int{1, 2, 2, 2} {
			if n := <-got; n != want {
				t.Errorf("got listing %d, want %d", n, want)
			}
		}
		// The others go on where the one whose listing they share is cancelled.
		go ask(t.Context())
		synctest.Wait()
		canceled, cancel := context.WithCancelCause(t.Context())
		go ask(canceled)
		synctest.Wait()
		go ask(t.Context())
		time.Sleep(1500 * time.Millisecond) // of synctest's fake time: a listing takes a second of it
		cancel(errors.New("stopped"))
		synctest.Wait()
		if a, b := <-got, <-got; a != 3 || b != -1 {
			t.Errorf("got %d and %d", a, b)
		}
		if c := <-got; c != 5 {
			t.Errorf("got listing %d, want one of its own", c)
		}
	})
}
