package observe

import (
	"context"
	"io"
	"sync"
	"time"

	"ambientlab/internal/probe/traffic"
)

// ahead is how many lines one of the two sources of a container's output may be ahead of the other.
const ahead = 4096

// output follows what a container prints on its standard output, from a moment on, and passes each line that parse
// knows to take, until take returns false, the output ends or ctx ends, which is no error.
//
// An Envoy at debug level prints one line on standard output for each request, the access log's, and some sixty on
// standard error. A log has both, and the API has no stable way to ask for one (PodLogsQuerySplitStreams is alpha in
// Kubernetes 1.36). The kubelet, the API server and the lab handle each line by itself, which takes as much processor
// time as the request does, and makes the requests slow that are measured. So the lab attaches to the container, and
// gets standard output alone, but from an unknown moment on. It follows the log until both have brought the same line;
// what comes later comes attached, too. Where the lab cannot attach, it follows the log to its end.
func output[T any](
	ctx context.Context, cluster traffic.Cluster, namespace, pod, container string, since time.Time,
	parse func(line string) (T, bool), take func(T) (more bool),
) error {
	var reading sync.WaitGroup
	defer reading.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log := read(ctx, &reading, parse, func(ctx context.Context, take func(string) bool) error {
		return follow(ctx, cluster, namespace, pod, container, since, take)
	})
	live := read(ctx, &reading, parse, func(ctx context.Context, take func(string) bool) error {
		return attach(ctx, cluster, namespace, pod, container, take)
	})
	h := handOver[T]{take: take, taken: map[string]int{}}
	for more := true; more; {
		select {
		case line := <-log.lines:
			more = h.fromLog(line)
		case line := <-live.lines:
			more = h.fromLive(line)
		case err := <-log.ended:
			return err
		case err := <-live.ended:
			if h.state == liveOnly {
				return err
			}
			h.alone()
		case <-ctx.Done():
			return nil
		}
		switch h.state {
		case both:
		case liveOnly:
			log.stop()
		case logOnly:
			live.stop()
		}
	}
	return nil
}

// source brings lines that are known, and then how it ended.
type source[T any] struct {
	lines  chan known[T]
	ended  chan error
	cancel context.CancelFunc
}

type known[T any] struct {
	line  string
	value T
}

func read[T any](
	ctx context.Context, reading *sync.WaitGroup, parse func(line string) (T, bool),
	from func(ctx context.Context, take func(line string) (more bool)) error,
) *source[T] {
	ctx, cancel := context.WithCancel(ctx)
	s := &source[T]{lines: make(chan known[T]), ended: make(chan error, 1), cancel: cancel}
	lines, ended := s.lines, s.ended
	reading.Go(func() {
		ended <- from(ctx, func(line string) bool {
			value, ok := parse(line)
			return !ok || passes(ctx, lines, known[T]{line, value})
		})
	})
	return s
}

// stop ends the source: nothing more comes from it.
func (s *source[T]) stop() {
	s.cancel()
	s.lines, s.ended = nil, nil
}

// handOver takes each line once that two sources bring in the same order: a log from the beginning on, and another from
// a later moment on.
type handOver[T any] struct {
	take  func(T) (more bool)
	state state
	// taken counts the log's lines that the other source has not brought yet; it may never bring them. waiting are
	// lines of the other source that the log has not brought yet.
	taken   map[string]int
	waiting []known[T]
}

type state int

const (
	both     state = iota // no line has come from both yet
	liveOnly              // the log is not needed any more
	logOnly               // the other source brings nothing
)

func (h *handOver[T]) fromLog(l known[T]) (more bool) {
	if h.state == both {
		if len(h.waiting) > 0 && h.waiting[0].line == l.line {
			return h.handedOver()
		}
		if h.taken[l.line]++; len(h.taken) > ahead {
			h.alone()
		}
	}
	return h.take(l.value)
}

func (h *handOver[T]) fromLive(l known[T]) (more bool) {
	if h.taken[l.line] > 0 {
		h.taken[l.line]--
		return h.handedOver()
	}
	if h.state == liveOnly {
		h.taken = nil // both have the same order, so the log has brought none of what comes now
		return h.take(l.value)
	}
	if h.waiting = append(h.waiting, l); len(h.waiting) > ahead {
		h.alone()
	}
	return true
}

func (h *handOver[T]) handedOver() (more bool) {
	waiting := h.waiting
	h.state, h.waiting = liveOnly, nil
	for _, l := range waiting {
		if !h.take(l.value) {
			return false
		}
	}
	return true
}

func (h *handOver[T]) alone() { h.state, h.taken, h.waiting = logOnly, nil, nil }

// attach passes each line that a container prints on its standard output from now on to take, until take returns false,
// the output ends or ctx ends.
func attach(
	ctx context.Context, cluster traffic.Cluster, namespace, pod, container string, take func(line string) (more bool),
) error {
	attaching, cancel := context.WithCancel(ctx)
	reader, writer := io.Pipe()
	var attached sync.WaitGroup
	attached.Go(func() {
		err := cluster.Attach(attaching, namespace, pod, container, writer)
		_ = writer.CloseWithError(err) // without an error, the output ended
	})
	defer attached.Wait()
	defer cancel()
	defer reader.Close() // or a writer would wait for ever
	first := true
	return scan(ctx, reader, func(line string) bool {
		if first {
			first = false
			return true // it may be the rest of a line
		}
		return take(line)
	})
}
