package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/engine"
	"ambientlab/internal/filelock"
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
	// Packets says that the pods of the lab run, WhyNoPackets why they do not. Ztunnel is the ztunnel that runs in
	// place of the node proxy.
	Packets      bool   `json:"packets"`
	WhyNoPackets string `json:"whyNoPackets,omitempty"`
	Ztunnel      string `json:"ztunnel,omitempty"`
	// Addons are the add-ons that were wanted at any time.
	Addons []string `json:"addons,omitempty"`
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
// nothing may be concluded from it, above all not that the lab must be removed.
func unreadable(err error) bool {
	return err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errBroken)
}

func (e *Embedded) save(s *state) error { return writeJSON(filepath.Join(e.dir, stateFile), s) }

// writeJSON writes a value as JSON.
func writeJSON(path string, value any) error {
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(path), err)
	}
	return atomicfile.Write(path, append(raw, '\n'), 0o600)
}

// lock keeps two runs from working on the same lab. Its file is next to the lab's folder.
func (e *Embedded) lock(ctx context.Context) (unlock func(), err error) {
	waiting := fmt.Sprintf("waiting until no other run works on %s", e.opts.Name)
	lock, err := filelock.Wait(ctx, e.lockFile(), func() { engine.Progress(ctx, "%s", waiting) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", waiting, err)
	}
	return func() { e.unlock(lock) }, nil
}

// unlock removes the file of the lock, and the folder of all labs if it is empty, where there is no lab.
func (e *Embedded) unlock(lock *filelock.Lock) {
	if exists(e.dir) {
		_ = lock.Unlock()
		return
	}
	_ = lock.Remove()
	_ = os.Remove(e.opts.StateDir)
}

func (e *Embedded) lockFile() string { return e.dir + ".lock" }

func (e *Embedded) log(name string) string { return filepath.Join(e.dir, "logs", name+".log") }

// lastLines gives the end of a log. Of a Go program that panicked that is what it said before its stack, which names
// the cause.
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
	if stack := slices.IndexFunc(lines, func(line string) bool { return goroutine.MatchString(line) }); stack > 0 {
		lines = lines[:stack]
	}
	lines = slices.DeleteFunc(lines, func(line string) bool { return strings.TrimSpace(line) == "" })
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		if len(line) > 400 {
			lines[i] = line[:400] + "…"
		}
	}
	return strings.Join(lines, "\n")
}

// goroutine begins the stack of a goroutine (Go, runtime.Stack).
var goroutine = regexp.MustCompile(`^goroutine \d+ .*\[.*\]:$`)

// exists tells whether a file is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
