package kubelet

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	logLimit = 10 << 20 // a kubelet's containerLogMaxSize
	logFiles = 5        // and its containerLogMaxFiles
	// logLine is where a line without end is cut into parts, as container runtimes do.
	logLine   = 16 << 10
	logFormat = "2006-01-02T15:04:05.000000000Z07:00"
)

// containerLog writes a container's output in the format of the Container Runtime Interface: time, stream, F for a full
// line or P for a part of one, and the text. When the file is large enough it goes on in a new one.
type containerLog struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64
	now  func() time.Time
}

func newLog(path string, now func() time.Time) (*containerLog, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	l := &containerLog{path: path, now: now}
	return l, l.open()
}

func (l *containerLog) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	l.file, l.size = file, info.Size()
	return nil
}

// stream is a writer for stdout or stderr.
func (l *containerLog) stream(name string) *logStream { return &logStream{log: l, name: name} }

// Close closes the file.
func (l *containerLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

func (l *containerLog) write(stream, tag string, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, _ := fmt.Fprintf(l.file, "%s %s %s %s\n", l.now().UTC().Format(logFormat), stream, tag, text)
	if l.size += int64(n); l.size > logLimit {
		l.rotate()
	}
}

// rotate puts the file aside under the time of now and removes the oldest. What fails is tried again at the next line.
func (l *containerLog) rotate() {
	if err := os.Rename(l.path, l.path+"."+l.now().UTC().Format("20060102-150405.000000")); err != nil {
		return
	}
	old := l.file
	if err := l.open(); err != nil {
		l.file = old
		return
	}
	_ = old.Close()
	rotated, err := filepath.Glob(l.path + ".*")
	if err != nil {
		return
	}
	slices.Sort(rotated)
	for len(rotated) > logFiles-1 {
		_ = os.Remove(rotated[0])
		rotated = rotated[1:]
	}
}

// logStream cuts one stream into lines.
type logStream struct {
	log  *containerLog
	name string
	rest []byte
}

var _ io.WriteCloser = (*logStream)(nil)

// Write never fails: a program must not be stopped because its log cannot be written.
func (s *logStream) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		end := bytes.IndexByte(s.rest, '\n')
		switch {
		case end >= 0 && end <= logLine:
			s.log.write(s.name, "F", s.rest[:end])
			s.rest = s.rest[end+1:]
		case len(s.rest) > logLine:
			s.log.write(s.name, "P", s.rest[:logLine])
			s.rest = s.rest[logLine:]
		default:
			s.rest = slices.Clone(s.rest)
			return len(p), nil
		}
	}
}

// Close writes a last line that has no end.
func (s *logStream) Close() error {
	if len(s.rest) > 0 {
		s.log.write(s.name, "F", s.rest)
		s.rest = nil
	}
	return nil
}
