package source

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ambientlab/internal/command"
)

// Binaries builds several programs, in the order in which they are named, and gives their paths by name. While one is
// compiled, the modules of those after it are fetched: the compiler keeps the processors busy, and the network would
// otherwise be idle until the next one begins.
func (b *Builder) Binaries(ctx context.Context, names []string) (map[string]string, error) {
	paths := make(map[string]string, len(names))
	var missing []Program
	for _, name := range names {
		p, err := known(name)
		if err != nil {
			return nil, err
		}
		path, err := b.path(ctx, p)
		if err != nil {
			return nil, err
		}
		if built(path) {
			touch(path)
		} else {
			missing = append(missing, p)
		}
		paths[name] = path
	}
	if len(missing) == 0 {
		return paths, nil
	}
	stop := b.fetchAhead(ctx, missing)
	defer stop()
	for i, p := range missing {
		var left time.Duration
		for _, later := range missing[i:] {
			left += later.Cold
		}
		if len(missing) > 1 {
			b.Progress(p.Name, fmt.Sprintf("program %d of %d to build; about %s to go on 2 cores", i+1, len(missing), roundly(left)))
		}
		if _, err := b.Binary(ctx, p.Name); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// fetchAhead fetches the modules of all programs but the first, whose build fetches them anyway, until it is stopped.
// What goes wrong is left to the build that needs them, which has the words for it.
func (b *Builder) fetchAhead(ctx context.Context, programs []Program) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var fetching sync.WaitGroup
	fetching.Go(func() {
		fetched := map[string]bool{programs[0].Module: true}
		for _, p := range programs[1:] {
			if fetched[p.Module] || ctx.Err() != nil {
				continue
			}
			fetched[p.Module] = true
			_, _ = b.run(ctx, command.Command{Dir: b.moduleFolder(p), Env: b.environment(), Name: "go", Args: []string{"mod", "download"}})
		}
	})
	return func() {
		cancel()
		fetching.Wait()
	}
}
