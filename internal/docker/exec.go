package docker

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

// Execer is the part of the client that Exec needs.
type Execer interface {
	ExecCreate(ctx context.Context, container string, options client.ExecCreateOptions) (client.ExecCreateResult, error)
	ExecAttach(ctx context.Context, execID string, options client.ExecAttachOptions) (client.ExecAttachResult, error)
	ExecInspect(ctx context.Context, execID string, options client.ExecInspectOptions) (client.ExecInspectResult, error)
}

// ExecError is a command in a container that ended with an exit code other than 0.
type ExecError struct {
	Container string
	Command   []string
	Code      int
	// Output is standard error, or standard output if standard error is empty.
	Output string
}

// Error is the command as a user would type it, how it ended, and what it printed.
func (e *ExecError) Error() string {
	text := fmt.Sprintf("`docker exec %s %s` ended with exit code %d", e.Container, strings.Join(e.Command, " "),
		e.Code)
	if output := strings.TrimSpace(e.Output); output != "" {
		text += ": " + output
	}
	return text
}

// Exec runs a command in a running container and returns its standard output. The processes of a node container of kind
// are privileged, as the container is. If the exit code is not 0, the error is an *ExecError, and the standard output
// is returned with it.
func Exec(ctx context.Context, api Execer, container string, command ...string) (string, error) {
	return ExecInput(ctx, api, container, nil, command...)
}

// ExecInput is Exec for a command that reads its standard input, which input writes. An error of input other than that
// the command stopped reading is returned as it is.
func ExecInput(ctx context.Context, api Execer, container string, input func(io.Writer) error,
	command ...string,
) (string, error) {
	failed := func(err error) error {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("running %s in container %s: %w", strings.Join(command, " "), container, err)
	}
	created, err := api.ExecCreate(ctx, container, client.ExecCreateOptions{
		Cmd: command, AttachStdin: input != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return "", failed(err)
	}
	attached, err := api.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return "", failed(err)
	}
	// The connection does not end with the context once it is hijacked.
	stop := context.AfterFunc(ctx, attached.Close)
	defer attached.Close()
	defer stop()
	var stdout, stderr tail
	copied := make(chan error, 1)
	go func() {
		_, err := stdcopy.StdCopy(&stdout, &stderr, attached.Reader)
		copied <- err
	}()
	produced, inputErr := feed(&attached.HijackedResponse, input)
	copyErr := <-copied
	if ctx.Err() != nil {
		return "", failed(ctx.Err())
	}
	if !produced {
		return "", inputErr
	}
	code, err := exitCode(ctx, api, created.ID)
	if err != nil {
		return "", failed(err)
	}
	if code != 0 {
		output := stderr.String()
		if strings.TrimSpace(output) == "" {
			output = stdout.String()
		}
		// An error of the input only says that the command stopped reading.
		return stdout.String(), &ExecError{Container: container, Command: command, Code: code, Output: output}
	}
	if err := errors.Join(inputErr, copyErr); err != nil {
		return "", failed(err)
	}
	return stdout.String(), nil
}

// feed writes the input of a command. If the input itself fails, produced is false and the connection is closed: the
// command would wait for more.
func feed(stream *client.HijackedResponse, input func(io.Writer) error) (produced bool, err error) {
	if input == nil {
		return true, nil
	}
	w := &failingWriter{w: stream.Conn}
	if err := input(w); err != nil {
		if !w.failed {
			stream.Close()
		}
		return w.failed, err
	}
	return true, stream.CloseWrite()
}

// failingWriter records whether a write failed.
type failingWriter struct {
	w      io.Writer
	failed bool
}

func (f *failingWriter) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	f.failed = f.failed || err != nil
	return n, err
}

// exitCode waits until the engine has recorded the end of the command, which can be after the end of its output.
func exitCode(ctx context.Context, api Execer, id string) (int, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		state, err := api.ExecInspect(ctx, id, client.ExecInspectOptions{})
		if err != nil {
			return 0, err
		}
		if !state.Running {
			return state.ExitCode, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, context.Cause(ctx)
		}
	}
}

// maxOutput is how much of a command's output is kept. It is the end of the output, where errors are.
const maxOutput = 1 << 20

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
