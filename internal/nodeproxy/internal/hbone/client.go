package hbone

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Conn is the client's side of one HTTP/2 connection. Its methods are safe for concurrent use.
type Conn struct {
	http2 *http2.ClientConn
	done  <-chan struct{}
}

// Client starts the client's side on a connection whose TLS handshake is complete. The connection closes when Close is
// called, when it is lost, and when it has carried no stream for five minutes.
func Client(nc net.Conn) (*Conn, error) {
	transport, err := http2.ConfigureTransports(&http.Transport{
		DisableCompression: true,
		IdleConnTimeout:    idleTimeout,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: streamWindow,
			MaxReadFrameSize:          receiveFrame,
			SendPingTimeout:           pingAfter,
			PingTimeout:               pingTimeout,
			WriteByteTimeout:          pingTimeout,
		},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("configuring HTTP/2: %w", err), nc.Close())
	}
	transport.MaxHeaderListSize = maxHeaderBytes
	observed := &observedConn{Conn: nc, closed: make(chan struct{})}
	conn, err := transport.NewClientConn(observed)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting HTTP/2: %w", err), observed.Close())
	}
	return &Conn{http2: conn, done: observed.closed}, nil
}

// Reserve reserves a stream for the next Connect, and reports whether the connection takes another stream.
func (c *Conn) Reserve() bool { return c.http2.ReserveNewRequest() }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection and every stream on it.
func (c *Conn) Close() { _ = c.http2.Close() }

// Connect opens a tunnel to authority and waits for the answer until ctx ends; the tunnel outlives ctx. The error is a
// StatusError if the peer refuses, and an http2.StreamError if the peer resets the stream.
func (c *Conn) Connect(ctx context.Context, authority string, header http.Header) (*ClientStream, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	s := &ClientStream{request: newRequestBody(c.done), end: end}
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("User-Agent", "") // none, instead of net/http's
	request := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: authority}, Host: authority,
		Header: header, Body: s.request,
	}
	answer, err := c.http2.RoundTrip(request.WithContext(life))
	switch {
	case err == nil && !stop():
		s.response = answer.Body
		s.Abort()
		err = context.Cause(ctx)
	case err == nil && answer.StatusCode != http.StatusOK:
		s.response = answer.Body
		s.Abort()
		return nil, StatusError{Status: answer.StatusCode}
	case err == nil:
		s.response = answer.Body
		return s, nil
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	end()
	return nil, fmt.Errorf("opening a tunnel to %s: %w", authority, err)
}

// ClientStream is the client's end of a tunnel. One goroutine may read while another one writes.
type ClientStream struct {
	request  *requestBody
	response io.ReadCloser
	end      context.CancelFunc
}

// Read returns what the peer sent, and io.EOF once the peer has ended its half.
func (s *ClientStream) Read(p []byte) (int, error) { return s.response.Read(p) }

// ReadFrom sends everything that r yields. It is the fast way to send: the transport reads from r itself. It returns
// nil early if the peer accepts no more data; Read then tells whether the peer ended the tunnel or reset it.
func (s *ClientStream) ReadFrom(r io.Reader) (int64, error) { return s.request.send(r) }

// Write sends p.
func (s *ClientStream) Write(p []byte) (int, error) {
	// A copy, since the transport may still read it after the stream was reset and Write has returned.
	n, err := s.request.send(bytes.NewReader(bytes.Clone(p)))
	if err == nil && n < int64(len(p)) {
		err = errRequestClosed
	}
	return int(n), err
}

// CloseWrite ends this half; the peer may go on sending.
func (s *ClientStream) CloseWrite() error {
	s.request.finish()
	return nil
}

// Abort resets the stream.
func (s *ClientStream) Abort() {
	s.end()
	_ = s.request.Close()
	_ = s.response.Close()
}

// Close releases the stream after both halves have ended. It waits until the transport has sent the end of this half.
func (s *ClientStream) Close() error {
	<-s.request.closed
	s.end()
	return s.response.Close()
}

// errRequestClosed means that the transport accepts no more data for a stream.
var errRequestClosed = errors.New("tunnel closed by the peer")

// errConnectionLost means that the connection ended before the client's half of a stream did. The transport notices
// that only when it has data to send, if the peer's half has ended.
var errConnectionLost = errors.New("HBONE connection lost")

// requestBody is the body of a CONNECT request: the transport reads from it what the stream sends.
type requestBody struct {
	sources  chan io.Reader  // what to send next
	finished chan struct{}   // closed once this half has ended
	sent     chan sent       // how the last source ended
	closed   chan struct{}   // closed once the transport reads no more
	lost     <-chan struct{} // closed once the connection has ended
	finish   func()
	close    func()

	// Used by the transport's goroutine alone.
	current io.Reader
	count   int64
}

type sent struct {
	count int64
	err   error
}

func newRequestBody(lost <-chan struct{}) *requestBody {
	b := &requestBody{
		sources: make(chan io.Reader), finished: make(chan struct{}), sent: make(chan sent, 1),
		closed: make(chan struct{}), lost: lost,
	}
	b.finish = sync.OnceFunc(func() { close(b.finished) })
	b.close = sync.OnceFunc(func() { close(b.closed) })
	return b
}

// send waits until the transport has read all of r, or reads no more.
func (b *requestBody) send(r io.Reader) (int64, error) {
	select {
	case b.sources <- r:
	case <-b.closed:
		return 0, nil
	case <-b.lost:
		return 0, errConnectionLost
	}
	select {
	case s := <-b.sent:
		return s.count, s.err
	case <-b.lost:
		return 0, errConnectionLost
	case <-b.closed:
	}
	select { // closed, maybe after all of r was sent
	case s := <-b.sent:
		return s.count, s.err
	default:
		return 0, nil
	}
}

// Read implements io.Reader for the transport. An error of a source breaks the stream, which the transport then resets.
func (b *requestBody) Read(p []byte) (int, error) {
	p = p[:min(len(p), sendFrame)]
	for {
		if b.current == nil {
			select {
			case b.current = <-b.sources:
			case <-b.finished:
				return 0, io.EOF
			case <-b.closed:
				return 0, errRequestClosed
			}
		}
		n, err := b.current.Read(p)
		b.count += int64(n)
		if err != nil {
			end := sent{count: b.count, err: err}
			b.current, b.count = nil, 0
			if errors.Is(err, io.EOF) {
				end.err, err = nil, nil
			}
			b.sent <- end
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Close implements io.Closer for the transport, which calls it when it reads no more.
func (b *requestBody) Close() error {
	b.close()
	return nil
}

// observedConn tells when a connection has been closed.
type observedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

// Close closes the connection, without waiting long for a peer that does not read.
func (c *observedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	if encrypted, ok := c.Conn.(*tls.Conn); ok {
		force := time.AfterFunc(closeTimeout, func() { _ = encrypted.NetConn().Close() })
		defer force.Stop()
	}
	return c.Conn.Close()
}
