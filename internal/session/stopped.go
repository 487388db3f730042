package session

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/cluster"
	"ambientlab/internal/problem"
)

// stoppedPatience is how long a process of the cluster may be away during a run before the run ends: no step would see
// what that process has to do. A step that starts a process again takes less.
const stoppedPatience = 15 * time.Second

// whileProcessesRun ends the context once a process of the cluster has ended during the run and was not started again.
// The returned function ends the watch, and replaces the error of a run that was ended so by the reason.
func (s *Session) whileProcessesRun(ctx context.Context) (context.Context, func(error) error) {
	runner, ok := s.provider.(cluster.ProcessRunner)
	if !ok {
		return ctx, func(err error) error { return err }
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		if what := ended(ctx, runner.Stopped); what != "" {
			cancel(problem.New(problem.ClusterStopped, nil, "%s", what))
		}
	})
	return ctx, func(err error) error {
		cause := context.Cause(ctx)
		cancel(nil)
		watch.Wait()
		if err != nil && problem.Is(cause, problem.ClusterStopped) {
			return cause
		}
		return err
	}
}

// ended returns the description of the first process that ends during the run and stays away, or nothing when ctx ends.
// A process that had ended before is the run's own work until it runs. The first word of a description is the name.
func ended(ctx context.Context, stopped func() []string) string {
	var before map[string]bool
	since := map[string]time.Time{}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		now := map[string]bool{}
		for _, description := range stopped() {
			name, _, _ := strings.Cut(description, " ")
			now[name] = true
			switch {
			case before == nil || before[name]:
			case since[name].IsZero():
				since[name] = time.Now()
			case time.Since(since[name]) >= stoppedPatience:
				return description
			}
		}
		if before == nil {
			before = now
		}
		maps.DeleteFunc(before, func(name string, _ bool) bool { return !now[name] })
		maps.DeleteFunc(since, func(name string, _ time.Time) bool { return !now[name] })
		select {
		case <-ctx.Done():
			return ""
		case <-tick.C:
		}
	}
}
