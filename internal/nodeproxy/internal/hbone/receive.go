package hbone

import (
	"fmt"
	"io"

	"golang.org/x/net/http2"
)

func (c *Conn) onData(f *http2.DataFrame) error {
	size := f.Length // with padding, which counts too
	c.received += size
	if c.received >= connWindow/4 {
		credit := c.received
		c.received = 0
		c.enqueue(func() error { return c.fr.WriteWindowUpdate(0, credit) })
	}
	s := c.stream(f.StreamID)
	if s == nil {
		c.mu.Lock()
		opened := f.StreamID <= c.lastPeer
		if c.client {
			opened = f.StreamID < c.nextID
		}
		c.mu.Unlock()
		if !opened {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil // it was on its way when we reset the stream
	}
	return s.receive(f.Data(), int64(size), f.StreamEnded())
}

// receive takes over data of a frame that used size bytes of the window.
func (s *Stream) receive(data []byte, size int64, end bool) error {
	s.mu.Lock()
	if s.remoteEnd {
		s.mu.Unlock()
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeStreamClosed}
	}
	if s.recvWin -= size; s.recvWin < 0 {
		s.mu.Unlock()
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeFlowControl}
	}
	s.unacked += size - int64(len(data))
	if len(data) > 0 && !s.gone {
		s.store(data)
		s.readable.Broadcast()
	}
	s.mu.Unlock()
	if end {
		s.endRemote()
	}
	return nil
}

// store copies data behind what is unread, filling the last buffer first: many tiny frames must not cost a whole
// buffer each. The caller holds mu.
func (s *Stream) store(data []byte) {
	if last := len(s.chunks) - 1; last >= 0 {
		room := s.chunks[last]
		n := min(cap(room)-len(room), len(data))
		s.chunks[last] = append(room, data[:n]...)
		data = data[n:]
	}
	for len(data) > 0 {
		b := s.conn.pool.Get().(*[16 << 10]byte)
		n := copy(b[:], data)
		s.chunks = append(s.chunks, b[:n])
		s.buffers = append(s.buffers, b)
		data = data[n:]
	}
}

// endRemote notes that the peer has ended its half.
func (s *Stream) endRemote() {
	s.mu.Lock()
	s.remoteEnd = true
	if s.readErr == nil {
		s.readErr = io.EOF
	}
	s.closeStatus()
	s.readable.Broadcast()
	s.mu.Unlock()
	s.settle()
}

func (s *Stream) answer(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.endedLocked {
		s.status <- code
		s.closeStatus()
	}
}

func (c *Conn) onWindow(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if c.sendWin += int64(f.Increment); c.sendWin > 1<<31-1 {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.wakeBlocked()
		return nil
	}
	s := c.streams[f.StreamID]
	if s == nil {
		return nil
	}
	if s.sendWin += int64(f.Increment); s.sendWin > 1<<31-1 {
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	s.flow.Broadcast()
	return nil
}

func (c *Conn) onReset(f *http2.RSTStreamFrame) {
	s := c.stream(f.StreamID)
	if s == nil {
		return
	}
	s.mu.Lock()
	finished := s.remoteEnd && f.ErrCode == http2.ErrCodeNo
	s.mu.Unlock()
	if finished {
		// RFC 9113, 8.1: a complete answer, and no interest in the rest of what we send. The answer stays readable.
		s.stopSending(ResetError{Code: f.ErrCode, Remote: true})
		return
	}
	s.abort(ResetError{Code: f.ErrCode, Remote: true})
	c.forget(s)
}

func (s *Stream) stopSending(err error) {
	s.conn.mu.Lock()
	s.sendErr = err
	s.flow.Broadcast()
	s.conn.mu.Unlock()
	s.mu.Lock()
	s.localEnd = true
	s.mu.Unlock()
	s.settle()
}

func (c *Conn) onPing(f *http2.PingFrame) {
	if f.IsAck() {
		select {
		case c.pong <- struct{}{}:
		default:
		}
		return
	}
	data := f.Data
	c.enqueue(func() error { return c.fr.WritePing(true, data) })
}

func (c *Conn) onGoAway(f *http2.GoAwayFrame) {
	c.mu.Lock()
	c.draining = true
	var lost []*Stream
	if c.client {
		for id, s := range c.streams {
			if id > f.LastStreamID {
				lost = append(lost, s)
			}
		}
	}
	empty := len(c.streams) == len(lost)
	c.mu.Unlock()
	for _, s := range lost {
		s.abort(fmt.Errorf("%w: peer is going away", ErrUnavailable))
		c.forget(s)
	}
	if empty {
		c.fail(fmt.Errorf("peer is going away: %s", f.ErrCode))
	}
}
