package apply

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// each calls f for 0 to n-1, a few at a time, until one fails.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range n {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}
