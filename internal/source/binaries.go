package source

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ambientlab/internal/command"
)

// Binaries builds programs, in the order of names, and returns their paths by name. While a program is compiled, the
// modules of the programs after it are fetched: compiling needs the processors, fetching needs the network.
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
			b.Progress(p.Name, fmt.Sprintf("program %d of %d to build; about %s left on 2 cores", i+1, len(missing),
				roundly(left)))
		}
		if _, err := b.Binary(ctx, p.Name); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// fetchAhead fetches the modules of all programs except the first, whose build fetches them anyway, until it is
// stopped. It ignores errors: the build that needs the modules reports them.
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
			_, _ = b.run(ctx, command.Command{
				Dir: b.moduleFolder(p), Env: b.environment(), Name: "go",
				Args: []string{"mod", "download"},
			})
		}
	})
	return func() {
		cancel()
		fetching.Wait()
	}
}
