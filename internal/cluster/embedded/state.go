package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ambientlab/internal/engine"
)

// Files in the lab's folder.
const (
	stateFile       = "lab.json"
	adminKubeconfig = "admin.kubeconfig"
	quotedLines     = 5
)

// state is what is remembered of a lab: what cannot be asked of its processes while they do not run.
type state struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Workers int       `json:"workers"`
	// Ports are those on 127.0.0.1, by what listens there.
	Ports map[string]int `json:"ports"`
	// Complete says that the lab was ready once.
	Complete bool `json:"complete"`
}

func (s *state) server() string { return s.address("https", portAPI) }

func (s *state) address(scheme, port string) string {
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, s.Ports[port])
}

func (e *Embedded) load() (*state, error) {
	raw, err := os.ReadFile(filepath.Join(e.dir, stateFile))
	if err != nil {
		return nil, err
	}
	s := &state{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("reading %s: %w: %w", stateFile, errBroken, err)
	}
	return s, nil
}

// errBroken is wrapped by load's error where the file is there and is not what the lab writes.
var errBroken = errors.New("it was not written whole")

// unreadable tells of load's error that it says nothing about the lab, as that of a process with too many open files:
// nothing may be concluded from it, and least of all that the lab is to be removed.
func unreadable(err error) bool {
	return err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errBroken)
}

func (e *Embedded) save(s *state) error { return writeJSON(filepath.Join(e.dir, stateFile), s) }

// writeJSON puts a file there whole or not at all.
func writeJSON(path string, value any) error {
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return writeFile(path, append(raw, '\n'))
}

// writeFile puts a file of mode 0600 there whole or not at all.
func writeFile(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		// Without it, a power failure soon after can leave an empty file under the name.
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}

const lockInterval = 100 * time.Millisecond

// lock keeps two runs from working on the same lab. It is the operating system's lock on a file beside the lab's
// folder, so it is gone with its process however that ends. Whoever deletes the lab deletes the file too, and the folder
// with the last lab: a file that was opened before and locked after is then another than the one that stands there, and
// is opened anew.
func (e *Embedded) lock(ctx context.Context) (unlock func(), err error) {
	for {
		file, held, err := e.tryLock()
		if err != nil {
			return nil, fmt.Errorf("locking embedded control plane %s: %w", e.opts.Name, err)
		}
		if held {
			return func() { e.unlock(file) }, nil
		}
		engine.Progress(ctx, "waiting until nobody else works on %s", e.opts.Name)
		select {
		case <-e.after(lockInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting until nobody else works on %s: %w", e.opts.Name, context.Cause(ctx))
		}
	}
}

// unlock takes the lock's file and the empty folder around it away where there is no lab any more, or never was.
func (e *Embedded) unlock(file *os.File) {
	if !exists(e.dir) {
		_ = os.Remove(e.lockFile())
		_ = os.Remove(e.opts.StateDir) // where it is empty; other labs keep theirs there
	}
	_ = file.Close() // releases it
}

func (e *Embedded) lockFile() string { return e.dir + ".lock" }

func (e *Embedded) tryLock() (*os.File, bool, error) {
	if err := os.MkdirAll(e.opts.StateDir, 0o700); err != nil {
		return nil, false, fmt.Errorf("making the folder for embedded control planes: %w", err)
	}
	file, err := os.OpenFile(e.lockFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil // whoever deleted the last lab took the folder away in between
	}
	if err != nil {
		return nil, false, err
	}
	held, err := flock(file)
	if held && err == nil {
		mine, errMine := file.Stat()
		there, errThere := os.Stat(e.lockFile())
		held = errMine == nil && errThere == nil && os.SameFile(mine, there)
	}
	if !held || err != nil {
		return nil, false, errors.Join(err, file.Close())
	}
	return file, true, nil
}

func (e *Embedded) log(name string) string { return filepath.Join(e.dir, "logs", name+".log") }

// lastLines gives the end of a log.
func lastLines(path string, n int) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	const tail = 8 << 10
	if info, err := file.Stat(); err == nil && info.Size() > tail {
		if _, err := file.Seek(-tail, 2); err != nil {
			return ""
		}
	}
	buffer := make([]byte, tail)
	read, _ := file.Read(buffer)
	lines := strings.Split(strings.TrimSpace(string(buffer[:read])), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		if len(line) > 400 {
			lines[i] = line[:400] + "…"
		}
	}
	return strings.Join(lines, "\n")
}

// exists tells whether a file is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
