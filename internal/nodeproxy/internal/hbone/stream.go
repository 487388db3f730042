package hbone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Stream is one tunnel. Read and Write may run side by side, each from one goroutine.
type Stream struct {
	conn *Conn
	id   uint32

	// Guarded by conn.mu, as the windows of stream and connection are taken together.
	flow    *sync.Cond
	sendWin int64
	sendErr error

	mu          sync.Mutex
	readable    *sync.Cond
	chunks      [][]byte // in order; each is the unread rest of a pooled buffer
	buffers     []*[16 << 10]byte
	recvWin     int64
	unacked     int64
	readErr     error // what Read returns once chunks is empty
	localEnd    bool
	remoteEnd   bool
	gone        bool
	endedLocked bool
	status      chan int
}

func (c *Conn) newStream(id uint32) *Stream {
	s := &Stream{conn: c, id: id, sendWin: c.peer.window, recvWin: streamWindow, status: make(chan int, 1)}
	s.flow = sync.NewCond(&c.mu)
	s.readable = sync.NewCond(&s.mu)
	return s
}

// Connect opens a tunnel to authority and waits for the answer. A refusal is a StatusError; ErrUnavailable means that
// nothing was sent.
func (c *Conn) Connect(ctx context.Context, authority string, headers ...Header) (*Stream, error) {
	fields := appendHeaders([]hpack.HeaderField{
		{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: authority},
	}, headers)
	var s *Stream
	err := c.write(func() error {
		// Stream numbers have to go out in order, so they are given under the write lock.
		c.mu.Lock()
		if !c.usable() {
			c.mu.Unlock()
			return nil
		}
		s = c.newStream(c.nextID)
		c.nextID += 2
		c.streams[s.id] = s
		c.mu.Unlock()
		return c.frameHeaders(s.id, fields, false)
	})
	switch {
	case s == nil:
		return nil, ErrUnavailable
	case err != nil:
		return nil, fmt.Errorf("opening a tunnel to %s: %w", authority, err)
	}
	select {
	case <-ctx.Done():
		s.Reset(http2.ErrCodeCancel)
		return nil, fmt.Errorf("opening a tunnel to %s: %w", authority, context.Cause(ctx))
	case status, ok := <-s.status:
		if !ok {
			return nil, fmt.Errorf("opening a tunnel to %s: %w", authority, s.failure())
		}
		if status != 200 {
			s.Reset(http2.ErrCodeCancel)
			return nil, StatusError{Status: status}
		}
		return s, nil
	}
}

func (s *Stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readErr
}

// Read returns what the peer sent; io.EOF once it has ended its half; a ResetError if the tunnel was torn down.
func (s *Stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	for len(s.chunks) == 0 && s.readErr == nil {
		s.readable.Wait()
	}
	if len(s.chunks) == 0 {
		err := s.readErr
		s.mu.Unlock()
		return 0, err
	}
	total := 0
	for total < len(p) && len(s.chunks) > 0 {
		n := copy(p[total:], s.chunks[0])
		total += n
		if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
			s.conn.pool.Put(s.buffers[0])
			s.chunks, s.buffers = s.chunks[1:], s.buffers[1:]
		}
	}
	s.unacked += int64(total)
	var credit uint32
	if s.unacked >= streamWindow/4 && !s.remoteEnd && s.readErr == nil {
		credit = uint32(s.unacked)
		s.recvWin += s.unacked
		s.unacked = 0
	}
	s.mu.Unlock()
	if credit > 0 {
		s.conn.enqueue(func() error { return s.conn.fr.WriteWindowUpdate(s.id, credit) })
	}
	return total, nil
}

// Write sends p and waits for the peer's window as long as it takes.
func (s *Stream) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := s.conn.reserve(s, len(p)-written)
		if err != nil {
			return written, err
		}
		part := p[written : written+n]
		if err := s.conn.write(func() error { return s.conn.fr.WriteData(s.id, false, part) }); err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// CloseWrite ends this side's half.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	if s.localEnd || s.gone {
		s.mu.Unlock()
		return nil
	}
	s.localEnd = true
	s.mu.Unlock()
	err := s.conn.write(func() error { return s.conn.fr.WriteData(s.id, true, nil) })
	s.settle()
	return err
}

// Reset tears the tunnel down in both directions.
func (s *Stream) Reset(code http2.ErrCode) {
	s.mu.Lock()
	already := s.gone
	s.mu.Unlock()
	s.abort(ResetError{Code: code})
	if !already {
		s.conn.enqueue(func() error { return s.conn.fr.WriteRSTStream(s.id, code) })
	}
	s.conn.forget(s)
}

// abort ends both directions with err, without a word to the peer.
func (s *Stream) abort(err error) {
	s.conn.mu.Lock()
	if s.sendErr == nil {
		s.sendErr = err
	}
	s.flow.Broadcast()
	s.conn.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.gone = true
	if s.readErr == nil || errors.Is(s.readErr, io.EOF) {
		s.readErr = err
	}
	// What was not read yet is dropped, as a reset drops it on a plain connection.
	for _, b := range s.buffers {
		s.conn.pool.Put(b)
	}
	s.chunks, s.buffers = nil, nil
	s.closeStatus()
	s.readable.Broadcast()
}

// settle forgets the stream once both halves have ended.
func (s *Stream) settle() {
	s.mu.Lock()
	ended := s.localEnd && s.remoteEnd && !s.gone
	if ended {
		s.gone = true
	}
	s.mu.Unlock()
	if ended {
		s.conn.forget(s)
	}
}

func (s *Stream) closeStatus() {
	if !s.endedLocked {
		s.endedLocked = true
		close(s.status)
	}
}
