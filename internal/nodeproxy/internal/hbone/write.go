package hbone

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Frames are put together in memory and sent in batches. Whoever finds nobody sending sends at once; what others add
// meanwhile goes out together afterwards. Many small frames of many streams so cost one system call, and a single
// stream waits for nobody.

// out is what waits to be sent. Its fields are guarded by Conn.wmu, which is never held while the network is written to.
type out struct {
	pending, spare []byte
	sending        bool
	closing        error         // to end the connection with, once all is sent
	room           *sync.Cond    // pending has shrunk
	wake           chan struct{} // the background sender has to take over
}

// Write implements io.Writer for the framer.
func (o *out) Write(b []byte) (int, error) {
	o.pending = append(o.pending, b...)
	return len(b), nil
}

// write frames something, waiting while too much is pending, and sends it unless somebody else is about to.
func (c *Conn) write(f func() error) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for len(c.out.pending) > maxPending && !c.ended() {
		c.out.room.Wait()
	}
	if err := c.frame(f); err != nil {
		return err
	}
	if !c.out.sending {
		c.out.sending = true
		c.sendOnce()
		c.handOver()
	}
	return nil
}

// enqueue frames something and never waits, so that the reading goroutine may call it: a peer that stops reading must
// not stop us from reading, or two such peers wait for each other for ever.
func (c *Conn) enqueue(f func() error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.frame(f); err != nil {
		return
	}
	if len(c.out.pending) > maxPending+maxControl {
		c.failLocked(errors.New("peer floods with control frames"))
		return
	}
	if !c.out.sending {
		c.out.sending = true
		c.handOver()
	}
}

// endAfter ends the connection once everything that is pending has been sent.
func (c *Conn) endAfter(err error) {
	c.enqueue(func() error {
		c.out.closing = err
		return nil
	})
}

// frame runs f; the caller holds wmu. Half a frame, or a lost step of HPACK, cannot be mended.
func (c *Conn) frame(f func() error) error {
	if c.ended() {
		return fmt.Errorf("HBONE connection lost: %w", c.cause())
	}
	if err := f(); err != nil {
		err = fmt.Errorf("framing: %w", err)
		c.failLocked(err)
		return err
	}
	return nil
}

// failLocked fails the connection from under wmu.
func (c *Conn) failLocked(err error) { go c.fail(err) }

// sendOnce sends what is pending; the caller holds wmu and is the sender. wmu is released meanwhile.
func (c *Conn) sendOnce() {
	batch := c.out.pending
	c.out.pending = c.out.spare[:0]
	c.wmu.Unlock()
	var err error
	if len(batch) > 0 {
		err = c.send(batch)
	}
	if err != nil {
		c.fail(fmt.Errorf("writing: %w", err))
	}
	c.wmu.Lock()
	if cap(batch) <= 2*maxPending {
		c.out.spare = batch
	}
	c.out.room.Broadcast()
}

// handOver lets the background sender go on if something is left; the caller holds wmu and is the sender.
func (c *Conn) handOver() {
	if len(c.out.pending) == 0 && c.out.closing == nil {
		c.out.sending = false
		return
	}
	c.out.wake <- struct{}{} // of capacity one, and there is one sender: never blocks
}

// sendLoop is the background sender.
func (c *Conn) sendLoop() {
	for {
		select {
		case <-c.done:
			c.wmu.Lock()
			c.out.room.Broadcast()
			c.wmu.Unlock()
			return
		case <-c.out.wake:
		}
		c.wmu.Lock()
		for len(c.out.pending) > 0 && !c.ended() {
			c.sendOnce()
		}
		c.out.sending = false
		closing := c.out.closing
		c.wmu.Unlock()
		if closing != nil {
			c.fail(closing)
		}
	}
}

// send writes a batch. Where the connection below TLS can hold writes back, the batch leaves in one piece and not in
// one for each record.
func (c *Conn) send(batch []byte) error {
	if c.batch == nil {
		_, err := c.nc.Write(batch)
		return err
	}
	c.batch.hold()
	_, err := c.nc.Write(batch)
	return errors.Join(err, c.batch.flush())
}

func (c *Conn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *Conn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
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
