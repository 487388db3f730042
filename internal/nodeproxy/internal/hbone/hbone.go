// Package hbone carries byte streams in HTTP/2 CONNECT requests: the tunnel protocol of ambient mesh.
//
// It is a small HTTP/2 of its own above golang.org/x/net/http2's framer, because that module's server ends a response
// only when its handler returns, and then resets the request: a server application that closes its half of a
// connection first could not be carried. Here each direction of a stream ends by itself, and a reset stays a reset.
package hbone

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/net/http2"
)

const (
	// streamWindow is how much one stream may hold unread. It bounds memory per tunnel and covers 1 Gbit/s at 4 ms.
	streamWindow = 512 << 10
	// connWindow is handed back as fast as it is used, so that one slow stream never stops its neighbours.
	connWindow = 16 << 20
	// frameSize leaves room for the frame header in one TLS record of 16 KiB.
	frameSize = 16<<10 - 9
	// maxStreams is what this side lets a peer open at once on one connection.
	maxStreams = 1000
	// usedStreams is how many streams this side puts on one connection, even where the peer would take more: one
	// connection is one TLS session, and runs on one core.
	usedStreams = 100
	// maxHeaderList bounds the headers of one CONNECT, in bytes.
	maxHeaderList = 16 << 10
	// maxPending bounds what waits to be sent, in bytes; who wants to send more has to wait.
	maxPending = 256 << 10
	// maxControl bounds what control frames may add to that, in bytes: a peer that floods with PING or SETTINGS and
	// does not read the answers is cut off.
	maxControl = 256 << 10
	// pingEvery and pingTimeout find dead peers.
	pingEvery   = 10 * time.Second
	pingTimeout = 20 * time.Second
)

// ErrClosed says that the connection was closed by this side.
var ErrClosed = errors.New("HBONE connection closed")

// ErrUnavailable says that a connection takes no further stream; the request was not sent and may go elsewhere.
var ErrUnavailable = errors.New("HBONE connection takes no further stream")

// ResetError says that a stream was torn down rather than ended.
type ResetError struct {
	Code   http2.ErrCode
	Remote bool
}

func (e ResetError) Error() string {
	if e.Remote {
		return fmt.Sprintf("stream reset by peer: %s", e.Code)
	}
	return fmt.Sprintf("stream reset: %s", e.Code)
}

// StatusError is a CONNECT that was refused.
type StatusError struct{ Status int }

func (e StatusError) Error() string { return fmt.Sprintf("http status: %d", e.Status) }

// Header is one header field; names are lower case.
type Header struct{ Name, Value string }

// Request is a CONNECT that arrived. Its handler answers with Accept or Reject, exactly once.
type Request struct {
	Method    string
	Authority string
	Headers   []Header
	stream    *Stream
}

// Header returns the first value of a header, or nothing.
func (r *Request) Header(name string) string {
	for _, h := range r.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// Accept answers 200; the stream is then the tunnel.
func (r *Request) Accept(headers ...Header) (*Stream, error) {
	if err := r.stream.conn.writeHeaders(r.stream.id, responseFields(200, headers), false); err != nil {
		return nil, fmt.Errorf("accepting a tunnel: %w", err)
	}
	return r.stream, nil
}

// Reject answers with a status and ends the stream.
func (r *Request) Reject(status int) error {
	err := r.stream.conn.writeHeaders(r.stream.id, responseFields(status, nil), true)
	// The peer may still be sending: NO_ERROR tells it that the answer stands and the rest is not wanted.
	r.stream.Reset(http2.ErrCodeNo)
	if err != nil {
		return fmt.Errorf("refusing a tunnel: %w", err)
	}
	return nil
}
