package observe_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// twoWays is a cluster with one waypoint, whose output comes by its log and attached, as the test writes it.
type twoWays struct {
	traffic.Cluster
	log, attached *io.PipeReader
	refused       error
	logClosed     chan struct{}
}

func (w twoWays) Pods(context.Context, string, string) ([]traffic.Pod, error) {
	return []traffic.Pod{{Name: "w1", Ready: true}}, nil
}

func (w twoWays) Logs(context.Context, string, string, string, time.Time) (io.ReadCloser, error) {
	return closing{w.log, w.logClosed}, nil
}

func (w twoWays) Attach(ctx context.Context, _, _, _ string, stdout io.Writer) error {
	if w.refused != nil {
		return w.refused
	}
	stop := context.AfterFunc(ctx, func() { _ = w.attached.CloseWithError(ctx.Err()) })
	defer stop()
	_, err := io.Copy(stdout, w.attached)
	return err
}

type closing struct {
	*io.PipeReader
	closed chan struct{}
}

func (c closing) Close() error {
	close(c.closed)
	return c.PipeReader.Close()
}

// Each line is taken once and in order, whichever way is ahead, and the log is given up once both bring the same.
func TestOutput(t *testing.T) {
	const fragment = `_code":200}` + "\n"
	lines := func(from, to int) string {
		var all strings.Builder
		for i := from; i <= to; i++ {
			fmt.Fprintln(&all, strings.ReplaceAll(labLine, "r1", fmt.Sprint("run", i)))
			fmt.Fprintln(&all, noise)
		}
		return all.String()
	}
	type write struct {
		to   string // log or attached
		text string
	}
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		writes  []write
		refused error
		upTo    int
		log     bool // is followed to the end
	}{
		"the log is ahead": {
			[]write{{"log", lines(1, 6)}, {"attached", fragment + lines(3, 8)}}, nil, 8, false,
		},
		"the log is behind": {
			[]write{
				{"log", lines(1, 1)},
				{"attached", fragment + lines(3, 6)},
				{"log", lines(2, 3)},
				{"attached", lines(7, 8)},
			},
			nil, 8, false,
		},
		"attached from the beginning on": {
			[]write{{"attached", "begin\n" + lines(1, 4)}, {"log", lines(1, 1)}, {"attached", lines(5, 5)}},
			nil, 5, false,
		},
		"only the log":         {[]write{{"log", lines(1, 5)}}, nil, 5, true},
		"attaching is refused": {[]write{{"log", lines(1, 5)}}, broken, 5, true},
		"the log is far ahead": {[]write{{"log", lines(1, 5000)}}, nil, 5000, true},
		"attached far ahead": {
			[]write{{"attached", fragment + lines(2, 5000)}, {"log", lines(1, 5000)}}, nil, 5000, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			log, toLog := io.Pipe()
			attached, toAttached := io.Pipe()
			closed := make(chan struct{})
			w := &observe.Waypoint{Cluster: twoWays{
				log: log, attached: attached, refused: tc.refused, logClosed: closed,
			}}
			var seen []string
			var err error
			ended := make(chan struct{})
			all := make(chan struct{})
			go func() {
				defer close(ended)
				err = w.Crossings(t.Context(), time.Time{}, func(c observe.Crossing) bool {
					if seen = append(seen, c.Run); len(seen) == tc.upTo {
						close(all)
					}
					return false
				})
			}()
			for _, write := range tc.writes {
				to := toLog
				if write.to == "attached" {
					to = toAttached
				}
				// The one that is not read any more may be closed under the writer.
				_, _ = io.WriteString(to, write.text)
			}
			<-all
			if tc.log {
				toLog.Close()
			} else {
				<-closed
				toAttached.CloseWithError(broken)
			}
			<-ended
			if errors.Is(err, broken) == tc.log {
				t.Errorf("ended with %v", err)
			}
			for i, run := range seen {
				if run != fmt.Sprint("run", i+1) {
					t.Fatalf("line %d is of %s", i+1, run)
				}
			}
			if len(seen) != tc.upTo {
				t.Errorf("%d lines, want %d", len(seen), tc.upTo)
			}
		})
	}
}
