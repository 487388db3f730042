package hbone

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// write runs f with the framer to itself; a failed write ends the connection, as half a frame may be out.
func (c *Conn) write(f func() error) error {
	c.wmu.Lock()
	err := f()
	c.wmu.Unlock()
	if err != nil {
		c.fail(fmt.Errorf("writing: %w", err))
	}
	return err
}

// enqueue hands a control frame to the writing goroutine and never blocks.
func (c *Conn) enqueue(f func() error) {
	c.qmu.Lock()
	c.queue = append(c.queue, f)
	flood := len(c.queue) > maxQueued
	c.qmu.Unlock()
	if flood {
		c.fail(errors.New("peer floods with control frames"))
		return
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Conn) writeQueued() {
	for {
		select {
		case <-c.done:
			return
		case <-c.wake:
		}
		c.qmu.Lock()
		batch := c.queue
		c.queue = nil
		c.qmu.Unlock()
		for _, f := range batch {
			if err := c.write(f); err != nil {
				return
			}
		}
	}
}

func (c *Conn) writeHeaders(id uint32, fields []hpack.HeaderField, end bool) error {
	return c.write(func() error { return c.frameHeaders(id, fields, end) })
}

// frameHeaders writes one HEADERS frame; the caller holds wmu, because HPACK's state follows the order of frames.
func (c *Conn) frameHeaders(id uint32, fields []hpack.HeaderField, end bool) error {
	c.hbuf.Reset()
	for _, f := range fields {
		if err := c.henc.WriteField(f); err != nil {
			return err
		}
	}
	if c.hbuf.Len() > 16<<10 {
		return errors.New("headers do not fit in one frame")
	}
	return c.fr.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: c.hbuf.Bytes(), EndHeaders: true, EndStream: end,
	})
}

func responseFields(status int, headers []Header) []hpack.HeaderField {
	fields := make([]hpack.HeaderField, 0, 1+len(headers))
	fields = append(fields, hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
	return appendHeaders(fields, headers)
}

func appendHeaders(fields []hpack.HeaderField, headers []Header) []hpack.HeaderField {
	for _, h := range headers {
		fields = append(fields, hpack.HeaderField{Name: h.Name, Value: h.Value})
	}
	return fields
}

// reserve waits until at least one byte may be sent on s, and takes up to n.
func (c *Conn) reserve(s *Stream, n int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case s.sendErr != nil:
			return 0, s.sendErr
		case c.err != nil:
			return 0, fmt.Errorf("HBONE connection lost: %w", c.err)
		case s.sendWin > 0 && c.sendWin > 0:
			delete(c.blocked, s)
			take := min(int64(min(n, frameSize, c.peer.frame)), s.sendWin, c.sendWin)
			s.sendWin -= take
			c.sendWin -= take
			return int(take), nil
		}
		c.blocked[s] = struct{}{}
		s.flow.Wait()
	}
}

// wakeBlocked wakes every stream that waits for window; the caller holds mu.
func (c *Conn) wakeBlocked() {
	for s := range c.blocked {
		s.flow.Broadcast()
	}
}
