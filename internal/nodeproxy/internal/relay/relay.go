// Package relay copies bytes both ways between two connections, and passes on how each direction ends.
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// A direction that moves little reads into a small buffer; one that fills it takes a large one for as long as it is
// busy. A thousand idle connections then need megabytes, not a hundred of them.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

// End is one end of a relay. An End that implements io.ReaderFrom reads by itself what it sends.
type End interface {
	io.Reader
	io.Writer
	// CloseWrite ends the direction that is written; the other one goes on.
	CloseWrite() error
	// Abort ends both directions at once, so that the peer sees a reset.
	Abort()
	// Close releases the end after both directions have ended.
	Close() error
}

// TCP returns a TCP connection as an End.
func TCP(c *net.TCPConn) End { return tcp{c} }

// tcp does not embed the connection, whose own ReadFrom would allocate a large buffer for each idle connection.
type tcp struct{ conn *net.TCPConn }

func (t tcp) Read(p []byte) (int, error)  { return t.conn.Read(p) }
func (t tcp) Write(p []byte) (int, error) { return t.conn.Write(p) }
func (t tcp) Close() error                { return t.conn.Close() }

func (t tcp) CloseWrite() error {
	// A connection that its peer has closed needs no end.
	err := t.conn.CloseWrite()
	if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (t tcp) Abort() {
	// With a linger time of zero the kernel sends a reset.
	_ = t.conn.SetLinger(0)
	_ = t.conn.Close()
}

// Counter counts the bytes that pass.
type Counter interface {
	Request(n int)
	Response(n int)
}

// Relay copies bytes. The zero value is ready to use; it keeps buffers for reuse.
type Relay struct{ buffers sync.Pool }

// Run copies bytes between client and server until both directions have ended, and closes both. If one direction fails,
// it aborts both ends and returns that direction's error.
func (r *Relay) Run(client, server End, count Counter) error {
	var once sync.Once
	var failure error
	run := func(direction string, to, from End, count func(int)) {
		if err := r.pump(to, from, count); err != nil {
			once.Do(func() {
				failure = fmt.Errorf("%s: %w", direction, err)
				client.Abort()
				server.Abort()
			})
		}
	}
	var up sync.WaitGroup
	up.Go(func() { run("client to server", server, client, count.Request) })
	run("server to client", client, server, count.Response)
	up.Wait()
	if failure != nil {
		return failure
	}
	return errors.Join(client.Close(), server.Close())
}

func (r *Relay) pump(to, from End, count func(int)) error {
	var err error
	if direct, ok := to.(io.ReaderFrom); ok {
		_, err = direct.ReadFrom(counted{from, count})
	} else {
		err = r.copy(to, counted{from, count})
	}
	if err != nil {
		return err
	}
	return to.CloseWrite()
}

func (r *Relay) copy(to io.Writer, from io.Reader) error {
	var small [smallBuffer]byte
	var large *[largeBuffer]byte
	defer func() { r.give(large) }()
	for {
		buf := small[:]
		if large != nil {
			buf = large[:]
		}
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case large == nil && n == smallBuffer:
			large = r.take()
		case large != nil && n < smallBuffer:
			r.give(large)
			large = nil
		}
	}
}

func (r *Relay) take() *[largeBuffer]byte {
	if b, ok := r.buffers.Get().(*[largeBuffer]byte); ok {
		return b
	}
	return new([largeBuffer]byte)
}

func (r *Relay) give(b *[largeBuffer]byte) {
	if b != nil {
		r.buffers.Put(b)
	}
}

// counted counts what is read from an End.
type counted struct {
	from  End
	count func(int)
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if n > 0 {
		c.count(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("receive: %w", err)
	}
	return n, err
}
