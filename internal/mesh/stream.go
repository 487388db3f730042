package mesh

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/streaming/pkg/httpstream"
)

// stream is one connection inside a tunnel.
type stream struct {
	tunnel *Tunnel
	conn   httpstream.Connection
	data   httpstream.Stream
	errs   httpstream.Stream

	// listened is closed when the error stream has ended; refusal is then what the kubelet said on it, or nil.
	listened chan struct{}
	refusal  error
	read     atomic.Bool
	closing  sync.Once
}

// listenForRefusal reads the error stream: kubelet says there why it could not reach the port, and then the whole
// connection cannot be used any more.
func (s *stream) listenForRefusal() {
	defer close(s.listened)
	message, err := io.ReadAll(s.errs)
	if err == nil && len(message) > 0 {
		s.refusal = s.tunnel.problem(errors.New(strings.TrimSpace(string(message))))
		s.tunnel.drop(s.conn)
	}
}

// refusalWait is how long a connection that ended without a byte waits for the reason, which travels on another stream.
const refusalWait = 2 * time.Second

// refused gives kubelet's reason for a connection that ended without a byte, or nil. It waits for the reason.
func (s *stream) refused() error {
	if s.read.Load() {
		return nil
	}
	timer := time.NewTimer(refusalWait)
	defer timer.Stop()
	select {
	case <-s.listened:
		return s.refusal
	case <-timer.C:
		return nil
	}
}

// Read implements net.Conn. Where no process listens on the port, the data ends before the first byte; kubelet's reason
// is returned in its place.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.data.Read(p)
	if n > 0 {
		s.read.Store(true)
	}
	if err == nil {
		return n, nil
	}
	if refusal := s.refused(); refusal != nil {
		return n, refusal
	}
	select {
	case <-s.conn.CloseChan():
		if !errors.Is(err, io.EOF) || !s.read.Load() {
			return n, s.tunnel.problem(errLost)
		}
	default:
	}
	return n, err
}

// Write implements net.Conn. Kubelet's reason can arrive, and end the connection, before the first byte is written.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.data.Write(p)
	if err != nil {
		if refusal := s.refused(); refusal != nil {
			return n, refusal
		}
	}
	return n, err
}

// CloseWrite tells the other side that no more comes.
func (s *stream) CloseWrite() error { return s.data.Close() }

// Close discards what is still being sent in both directions.
func (s *stream) Close() error {
	var err error
	s.closing.Do(func() {
		err = s.data.Reset()
		_ = s.errs.Reset()
		s.conn.RemoveStreams(s.data, s.errs)
	})
	return err
}

// streamAddr names the pod's port.
type streamAddr string

func (streamAddr) Network() string  { return "portforward" }
func (a streamAddr) String() string { return string(a) }

func (s *stream) LocalAddr() net.Addr  { return streamAddr("localhost") }
func (s *stream) RemoteAddr() net.Addr { return streamAddr(s.tunnel.String()) }

// Deadlines do not exist inside a tunnel; contexts end what takes too long.
func (s *stream) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (s *stream) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (s *stream) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
