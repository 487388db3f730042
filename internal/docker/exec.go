package docker

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
)

// Execer is the part of the client Exec needs.
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
	// Output is standard error, or standard output where that is empty.
	Output string
}

// Error is the command as one would type it, how it ended, and what it said.
func (e *ExecError) Error() string {
	return fmt.Sprintf("`docker exec %s %s` ended with exit code %d: %s",
		e.Container, strings.Join(e.Command, " "), e.Code, strings.TrimSpace(e.Output))
}

// Exec runs a command in a running container and gives its standard output. A node
// container of kind is privileged, and its processes inherit that; nothing is added.
// An exit code other than 0 is an *ExecError.
func Exec(ctx context.Context, api Execer, container string, command ...string) (string, error) {
	doing := func(err error) error {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("running %s in container %s: %w", strings.Join(command, " "), container, err)
	}
	created, err := api.ExecCreate(ctx, container, client.ExecCreateOptions{
		Cmd: command, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return "", doing(err)
	}
	attached, err := api.ExecAttach(ctx, created.ID, client.ExecAttachOptions{})
	if err != nil {
		return "", doing(err)
	}
	// The attached connection knows nothing of the context once it is hijacked.
	stop := context.AfterFunc(ctx, attached.Close)
	defer attached.Close()
	defer stop()
	var stdout, stderr bytes.Buffer
	if _, err := stdcopy.StdCopy(&stdout, &stderr, attached.Reader); err != nil || ctx.Err() != nil {
		return "", doing(err)
	}
	ended, err := api.ExecInspect(ctx, created.ID, client.ExecInspectOptions{})
	if err != nil {
		return "", doing(err)
	}
	if ended.ExitCode != 0 {
		output := stderr.String()
		if strings.TrimSpace(output) == "" {
			output = stdout.String()
		}
		return "", &ExecError{Container: container, Command: command, Code: ended.ExitCode, Output: output}
	}
	return stdout.String(), nil
}
