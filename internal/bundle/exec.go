package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// NodeEngine is what loading into nodes asks of the Docker API; *client.Client has it.
type NodeEngine interface {
	ExecCreate(context.Context, string, client.ExecCreateOptions) (client.ExecCreateResult, error)
	ExecAttach(context.Context, string, client.ExecAttachOptions) (client.ExecAttachResult, error)
	ExecInspect(context.Context, string, client.ExecInspectOptions) (client.ExecInspectResult, error)
}

// command is a command run in a node's container.
type command struct {
	docker NodeEngine
	clock  Clock
	node   string
	args   []string
	// input writes the command's standard input; nil closes it at once.
	input func(io.Writer) error
}

// commandError is a command that failed in a node, with what it said.
type commandError struct {
	node   string
	args   []string
	code   int
	output string
}

func (e *commandError) Error() string {
	text := fmt.Sprintf("`docker exec -i %s %s` ended with code %d", e.node, strings.Join(e.args, " "), e.code)
	if e.output != "" {
		text += ": " + e.output
	}
	return text
}

// run runs the command and returns its standard output. A command that fails is a
// *commandError. A cancelled context ends the connection, which ends the command's input.
func (c command) run(ctx context.Context) (string, error) {
	created, err := c.docker.ExecCreate(ctx, c.node, client.ExecCreateOptions{
		AttachStdin: c.input != nil, AttachStdout: true, AttachStderr: true, Cmd: c.args,
	})
	if err != nil {
		return "", fmt.Errorf("starting %s in node %s: %w", c.args[0], c.node, err)
	}
	stream, err := c.docker.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return "", fmt.Errorf("starting %s in node %s: %w", c.args[0], c.node, err)
	}
	stop := context.AfterFunc(ctx, stream.Close)
	defer func() {
		if stop() {
			stream.Close()
		}
	}()

	var stdout, stderr tail
	copied := make(chan error, 1)
	go func() {
		_, err := stdcopy.StdCopy(&stdout, &stderr, stream.Reader)
		copied <- err
	}()
	produced, inputErr := c.feed(&stream.HijackedResponse)
	copyErr := <-copied
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s in node %s: %w", c.args[0], c.node, context.Cause(ctx))
	}
	if !produced {
		return "", inputErr
	}
	code, err := c.exitCode(ctx, created.ID)
	if err != nil {
		return "", err
	}
	if code != 0 {
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.String())
		}
		// The input's error, if any, is only that the command left off listening.
		return stdout.String(), &commandError{node: c.node, args: c.args, code: code, output: said}
	}
	if err := errors.Join(inputErr, copyErr); err != nil {
		return "", fmt.Errorf("%s in node %s: %w", c.args[0], c.node, err)
	}
	return stdout.String(), nil
}

// feed writes the command's input. produced is false where the input could not be had,
// as against not be written because the command left off listening: the command then
// waits for more, and only the end of the connection ends it.
func (c command) feed(stream *client.HijackedResponse) (produced bool, err error) {
	if c.input == nil {
		return true, nil
	}
	w := &failingWriter{w: stream.Conn}
	if err := c.input(w); err != nil {
		if !w.failed {
			stream.Close()
		}
		return w.failed, err
	}
	return true, stream.CloseWrite()
}

// failingWriter remembers whether it was the writing that failed.
type failingWriter struct {
	w      io.Writer
	failed bool
}

func (f *failingWriter) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.failed = f.failed || err != nil
	return n, err
}

// exitCode waits for the command's end to be known: its output can end a moment before
// Docker records that it exited.
func (c command) exitCode(ctx context.Context, id string) (int, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		state, err := c.docker.ExecInspect(ctx, id, client.ExecInspectOptions{})
		if err != nil {
			return 0, fmt.Errorf("asking how %s in node %s ended: %w", c.args[0], c.node, err)
		}
		if !state.Running {
			return state.ExitCode, nil
		}
		if err := c.clock.Sleep(ctx, wait); err != nil {
			return 0, fmt.Errorf("waiting for %s in node %s to end: %w", c.args[0], c.node, err)
		}
	}
}

// maxOutput is how much of a command's output is kept: its end, where the reason is.
const maxOutput = 256 << 10

// tail keeps the end of what is written to it.
type tail struct{ buffer bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.buffer.Write(p)
	if excess := t.buffer.Len() - maxOutput; excess > 0 {
		t.buffer.Next(excess)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.buffer.String() }
