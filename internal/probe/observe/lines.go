package observe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"

	"ambientlab/internal/probe/traffic"
)

// Logs are logs of pods of which lines are counted.
type Logs struct {
	Namespace, Container string
	Pods                 []traffic.Pod
	// Since is the moment from which lines count. A line without a time counts.
	Since time.Time
	// Want is how many lines are expected, in all pods together. Patience is how long one more is waited for.
	Want     int
	Patience time.Duration
	Match    func(line string) bool
}

// CountLines counts the lines that match, by the pod's name. It returns when it has found as many as are wanted, or
// when no more came for as long as its patience lasts.
func CountLines(ctx context.Context, cluster traffic.Cluster, logs Logs) (map[string]int, error) {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	found := make(chan string)
	ended := make(chan error, len(logs.Pods))
	following := 0
	for _, pod := range logs.Pods {
		if !pod.Ready {
			continue
		}
		following++
		readers.Go(func() { ended <- logs.follow(ctx, cluster, pod.Name, found) })
	}
	counts, sum := map[string]int{}, 0
	var errs []error
	for following > 0 && sum < logs.Want {
		select {
		case pod := <-found:
			counts[pod]++
			sum++
		case err := <-ended:
			following--
			errs = append(errs, err)
		case <-time.After(logs.Patience):
			return counts, errors.Join(errs...)
		case <-ctx.Done():
			return counts, context.Cause(ctx)
		}
	}
	return counts, errors.Join(errs...)
}

func (l Logs) follow(ctx context.Context, cluster traffic.Cluster, pod string, found chan<- string) error {
	err := follow(ctx, cluster, l.Namespace, pod, l.Container, l.Since, func(line string) bool {
		return !l.Match(line) || before(line, l.Since) || passes(ctx, found, pod)
	})
	if err != nil {
		return fmt.Errorf("reading the log of %s: %w", pod, err)
	}
	return nil
}

// follow follows the log of a container from a moment on and passes each line to take, until take returns false, the
// log ends or ctx ends, which is no error.
func follow(
	ctx context.Context, cluster traffic.Cluster, namespace, pod, container string, since time.Time,
	take func(line string) (more bool),
) error {
	log, err := cluster.Logs(ctx, namespace, pod, container, since)
	if err != nil {
		return err
	}
	// A reader that is blocked in the log notices the end of ctx only when the log is closed under it.
	stop := context.AfterFunc(ctx, func() { _ = log.Close() })
	defer func() {
		if stop() {
			_ = log.Close()
		}
	}()
	return scan(ctx, log, take)
}

// scan passes each line to take, until take returns false, the text ends or ctx ends, which is no error.
func scan(ctx context.Context, text io.Reader, take func(line string) (more bool)) error {
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !take(lines.Text()) {
			return nil
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return lines.Err()
}

// passes sends a value unless ctx ends before it is received.
func passes[T any](ctx context.Context, to chan<- T, value T) bool {
	select {
	case to <- value:
		return true
	case <-ctx.Done():
		return false
	}
}

// moment is a time as programs write it into their logs.
var moment = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)

// before tells whether a line was written before a moment, as far as it says when.
func before(line string, since time.Time) bool {
	at, err := time.Parse(time.RFC3339Nano, moment.FindString(line))
	return err == nil && at.Before(since)
}
