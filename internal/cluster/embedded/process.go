package embedded

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// spec says how to start a process.
type spec struct {
	Name string   `json:"name"`
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir"`
	// Server is the API server's address where it stands in a kubeconfig that the process has read: with another one
	// the process has to be started again.
	Server string `json:"server,omitempty"`
	// Input tells apart what is in a file that the process reads when it starts.
	Input string `json:"input,omitempty"`
}

// digest tells specs apart.
func (s spec) digest() string {
	raw, _ := json.Marshal(s) // a struct of strings
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// record says which process a component is. A process ID alone does not: the system gives it to another process once
// the first is gone. Together with the time that the process started, it names one process only.
type record struct {
	PID     int    `json:"pid"`
	Started string `json:"started"`
	Spec    string `json:"spec"`
	Path    string `json:"path"`
}

// alive tells whether the process still runs. Where that cannot be told it counts as running: a second process
// would do more harm than none.
func (r record) alive() bool {
	running, err := r.look()
	return running || err != nil
}

func (r record) look() (running bool, err error) {
	started, running, err := startTime(r.PID)
	return running && started == r.Started, err
}

func (e *Embedded) recordFile(name string) string { return filepath.Join(e.dir, "run", name+".json") }

func (e *Embedded) record(name string) (record, error) {
	raw, err := os.ReadFile(e.recordFile(name))
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		// It names no process, as that of a dead one does, and is replaced or removed like it: an error here would keep
		// every target from working, sm:delete too.
		return record{}, nil
	}
	return r, nil
}

// start starts a process in a session of its own, with its output at the end of the log. The channel gives its end.
func start(s spec, log string) (int, <-chan error, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = output.Close() }() // the process has its own
	command := exec.Command(s.Path, s.Args...)
	command.Dir, command.Env = s.Dir, s.Env
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = detached()
	if err := keepInherited(); err != nil {
		return 0, nil, err
	}
	if err := command.Start(); err != nil {
		return 0, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	return command.Process.Pid, ended, nil
}

// launch starts a component and returns when ready says so. A component that dies before is an error with the last
// lines of its log.
func (e *Embedded) launch(ctx context.Context, s spec, ready func(context.Context) error) error {
	if err := e.rotate(s.Name); err != nil {
		return err
	}
	pid, ended, err := e.starter(s, e.log(s.Name))
	if err != nil {
		return fmt.Errorf("starting %s: %w", s.Name, err)
	}
	started, _, err := startTime(pid)
	if err == nil {
		err = writeJSON(e.recordFile(s.Name), record{PID: pid, Started: started, Spec: s.digest(), Path: s.Path})
	}
	if err != nil {
		// Without its record no later run would find it.
		return fmt.Errorf("noting which process %s is: %w", s.Name, errors.Join(err, end(pid, ended)))
	}
	return e.await(ctx, s.Name, func() (bool, error) {
		select {
		case err := <-ended:
			return true, err
		default:
			return false, nil
		}
	}, ready)
}

// end kills a process that this one has just started. Until its exit status is read, no other process gets its ID.
func end(pid int, ended <-chan error) error {
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	<-ended
	return nil
}

const (
	readyInterval = 50 * time.Millisecond
	// startLimit is how long a component may take on a machine that is busy.
	startLimit = 3 * time.Minute
)

// errDied is wrapped by await's error where the component ended.
var errDied = errors.New("the process ended")

// await asks ready again and again: a process that is only starting has nothing to watch yet.
func (e *Embedded) await(
	ctx context.Context, name string, ended func() (bool, error), ready func(context.Context) error,
) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("it took longer than %s", startLimit))
	defer cancel()
	var last error
	for {
		if over, err := ended(); over {
			return problem.New(problem.ClusterCreateFailed, errors.Join(errDied, err), "%s ended; its log says:\n%s",
				name, lastLines(e.log(name), quotedLines))
		}
		if err := ready(ctx); err == nil {
			return nil
		} else if ctx.Err() == nil {
			last = err
		}
		select {
		case <-e.after(readyInterval):
		case <-ctx.Done():
			return problem.New(problem.NotReady, errors.Join(context.Cause(ctx), last),
				"%s is not ready; its log ends with:\n%s", name, lastLines(e.log(name), quotedLines))
		}
	}
}

// rotate keeps the log of the run before, and no more.
func (e *Embedded) rotate(name string) error {
	err := os.Rename(e.log(name), e.log(name)+".before")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("putting the old log of %s aside: %w", name, err)
	}
	return nil
}

// grace is how long a process may take to end by itself.
const grace = 5 * time.Second

// stop ends a component, if it is still the process that was started, and forgets it. hard leaves it no time: what it
// would save is about to be deleted.
func (e *Embedded) stop(ctx context.Context, name string, hard bool) error {
	known, err := e.record(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// Where the system has handles for processes, FindProcess takes one: after the comparison of the start time, the
	// signal cannot reach another process.
	process, err := os.FindProcess(known.PID)
	running, unknown := known.look()
	if unknown != nil {
		return fmt.Errorf("looking whether process %d is %s: %w", known.PID, name, unknown)
	}
	if err == nil && running {
		// The pod runner ends its pods, which write into the lab's folder, when it is asked to; killed, it ends before
		// they do.
		if !hard || name == podRunner {
			_ = process.Signal(syscall.SIGTERM)
			if e.gone(ctx, known, grace) {
				return e.forget(name)
			}
		}
		if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("ending %s (process %d): %w", name, known.PID, err)
		}
		if !e.gone(context.WithoutCancel(ctx), known, grace) {
			return fmt.Errorf("ending %s: process %d does not go away", name, known.PID)
		}
	}
	return e.forget(name)
}

func (e *Embedded) forget(name string) error {
	if err := os.Remove(e.recordFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting %s: %w", name, err)
	}
	return nil
}

// gone waits for the end of a process that need not be a child of this one.
func (e *Embedded) gone(ctx context.Context, r record, limit time.Duration) bool {
	deadline := e.after(limit)
	for r.alive() {
		select {
		case <-e.after(readyInterval):
		case <-deadline:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// ensure makes sure that a component runs as specified.
func (e *Embedded) ensure(ctx context.Context, s spec, ready func(context.Context) error) error {
	known, err := e.record(s.Name)
	switch {
	case err != nil || !known.alive():
		engine.Progress(ctx, "starting %s", s.Name)
	case known.Spec == s.digest():
		// It may be ending just now, and then never becomes ready.
		err := e.await(ctx, s.Name, func() (bool, error) { return !known.alive(), nil }, ready)
		if !errors.Is(err, errDied) {
			return err
		}
		engine.Progress(ctx, "starting %s, which ended", s.Name)
	default:
		engine.Progress(ctx, "restarting %s, whose settings changed", s.Name)
		if err := e.stop(ctx, s.Name, false); err != nil {
			return err
		}
	}
	if err := e.launch(ctx, s, ready); err != nil {
		return err
	}
	engine.Changed(ctx, engine.Change{Object: "process " + s.Name, Action: engine.Run})
	return nil
}
