// Package relay carries bytes both ways between two connections, so that neither end can tell that they are two.
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/net/http2"

	"ambientlab/nodeproxy/internal/hbone"
)

// A connection that moves little reads into a small buffer of its own; one that fills it borrows a large one for as
// long as it is busy. A thousand idle connections so cost megabytes and not a hundred of them.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10 // four HBONE frames
)

// End is one end of a relay.
type End interface {
	io.Reader
	io.Writer
	// CloseWrite ends what is written; the other direction goes on.
	CloseWrite() error
	// Abort tears both directions down, so that the peer sees a reset and not an end.
	Abort()
	// Close gives the end's resources back after both directions have ended.
	Close() error
}

// TCP makes an End of a TCP connection.
func TCP(c *net.TCPConn) End { return tcp{c} }

type tcp struct{ *net.TCPConn }

func (t tcp) Abort() {
	// No lingering: the kernel then sends a reset instead of an end.
	_ = t.SetLinger(0)
	_ = t.TCPConn.Close()
}

// Tunnel makes an End of an HBONE stream.
func Tunnel(s *hbone.Stream) End { return tunnel{s} }

type tunnel struct{ *hbone.Stream }

func (t tunnel) Abort()       { t.Reset(http2.ErrCodeConnect) }
func (t tunnel) Close() error { return nil }

// Counter hears of bytes as they pass.
type Counter interface {
	Request(n int)
	Response(n int)
}

// Relay carries bytes. The zero value is ready; it keeps buffers for reuse.
type Relay struct{ buffers sync.Pool }

// Run carries bytes between client and server until both directions have ended, and closes both. If one direction
// breaks, both ends are aborted; the error says which.
func (r *Relay) Run(client, server End, count Counter) error {
	results := make(chan error, 2)
	go func() { results <- wrap("client to server", r.pump(server, client, count.Request)) }()
	go func() { results <- wrap("server to client", r.pump(client, server, count.Response)) }()
	first := <-results
	if first != nil {
		client.Abort()
		server.Abort()
		<-results
		return first
	}
	second := <-results
	if second != nil {
		client.Abort()
		server.Abort()
		return second
	}
	return ignoreClosed(errors.Join(client.Close(), server.Close()))
}

func (r *Relay) pump(to, from End, count func(int)) error {
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
			if _, werr := to.Write(buf[:n]); werr != nil {
				return fmt.Errorf("send: %w", werr)
			}
			count(n)
		}
		switch {
		case large == nil && n == smallBuffer:
			large = r.take()
		case large != nil && n < smallBuffer:
			r.give(large)
			large = nil
		}
		switch {
		case errors.Is(err, io.EOF):
			// An end that has already gone needs no telling.
			return ignoreClosed(ignoreNotConnected(to.CloseWrite()))
		case err != nil:
			return fmt.Errorf("receive: %w", err)
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

func wrap(direction string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", direction, err)
	}
	return nil
}
