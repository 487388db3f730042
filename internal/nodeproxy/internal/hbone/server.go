package hbone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Server is the server's side of HTTP/2 connections.
type Server struct {
	base  *http.Server
	http2 *http2.Server
}

// NewServer returns a server that logs to log what peers do wrong.
func NewServer(log *slog.Logger) (*Server, error) {
	s := &Server{
		base: &http.Server{MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)},
		http2: &http2.Server{
			MaxConcurrentStreams:         maxStreams,
			MaxUploadBufferPerStream:     streamWindow,
			MaxUploadBufferPerConnection: connWindow,
			// The smallest that HTTP/2 permits: a Go client keeps a buffer of this size for each stream.
			MaxReadFrameSize: 16 << 10,
			ReadIdleTimeout:  pingAfter,
			PingTimeout:      pingTimeout,
			WriteByteTimeout: pingTimeout,
		},
	}
	if err := http2.ConfigureServer(s.base, s.http2); err != nil {
		return nil, fmt.Errorf("configuring HTTP/2: %w", err)
	}
	return s, nil
}

// Serve serves a connection whose TLS handshake is complete, and calls handler on a goroutine of its own for each
// request. It returns when the connection has ended and every handler has returned. ctx does not end the connection:
// close nc for that.
func (s *Server) Serve(ctx context.Context, nc net.Conn, handler func(*Request)) {
	var mu sync.Mutex
	var ended bool
	var running sync.WaitGroup
	start := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			running.Add(1)
		}
		return !ended
	}
	s.http2.ServeConn(&gentleConn{Conn: nc}, &http2.ServeConnOpts{
		Context: ctx, BaseConfig: s.base,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !start() {
				return
			}
			defer running.Done()
			request := &Request{Method: r.Method, Authority: r.Host, header: r.Header, stream: &ServerStream{
				request: r.Body, response: w, control: http.NewResponseController(w),
			}}
			defer request.stream.leave()
			handler(request)
		}),
	})
	mu.Lock()
	ended = true
	mu.Unlock()
	running.Wait()
}

// Drain tells the peer of every connection to open no further stream. A connection closes one second after its last
// stream has ended.
func (s *Server) Drain() {
	// Shutdown has no listener to close and no connection of its own to wait for.
	_ = s.base.Shutdown(context.Background())
}

// Request is a request that arrived. Its handler answers with Accept or Reject, exactly once.
type Request struct {
	Method    string
	Authority string
	header    http.Header
	stream    *ServerStream
}

// Header returns the first value of a header, or "".
func (r *Request) Header(name string) string { return r.header.Get(name) }

// Accept answers 200. The stream may be used until the handler returns.
func (r *Request) Accept() (*ServerStream, error) {
	if err := r.stream.answer(http.StatusOK); err != nil {
		return nil, fmt.Errorf("accepting a tunnel: %w", err)
	}
	return r.stream, nil
}

// Reject answers with a status. The handler then returns, which ends the stream.
func (r *Request) Reject(status int) error {
	if err := r.stream.answer(status); err != nil {
		return fmt.Errorf("refusing a tunnel: %w", err)
	}
	return nil
}

// ServerStream is the server's end of a tunnel. One goroutine may read while another one writes.
type ServerStream struct {
	request  io.Reader
	response http.ResponseWriter

	mu      sync.Mutex
	left    bool // the handler has returned: net/http forbids to use the response
	control *http.ResponseController
}

func (s *ServerStream) answer(status int) error {
	s.response.Header()["Date"] = nil // none, instead of net/http's
	s.response.WriteHeader(status)
	return s.control.Flush()
}

// Read returns what the peer sent. It returns io.EOF once the peer has ended its half or CloseWrite was called.
func (s *ServerStream) Read(p []byte) (int, error) {
	n, err := s.request.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF
	}
	return n, err
}

// Write sends p.
func (s *ServerStream) Write(p []byte) (int, error) {
	n, err := s.response.Write(p)
	if err != nil {
		return n, err
	}
	return n, s.control.Flush()
}

// CloseWrite ends the stream: net/http cannot end a response and go on reading the request. What the peer sent so far
// stays readable, and Read then returns io.EOF; what the peer sends later is lost. The peer sees the end of this half
// when the handler returns.
func (s *ServerStream) CloseWrite() error {
	return s.controlled(func() error { return s.control.SetReadDeadline(past()) })
}

// Abort resets the stream.
func (s *ServerStream) Abort() {
	// A write deadline that has passed makes net/http reset the stream at once.
	_ = s.controlled(func() error { return s.control.SetWriteDeadline(past()) })
}

// Close does nothing: the stream ends when the handler returns.
func (s *ServerStream) Close() error { return nil }

func (s *ServerStream) controlled(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return nil
	}
	return f()
}

func (s *ServerStream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
}

func past() time.Time { return time.Unix(1, 0) }
