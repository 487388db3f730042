// Package hbone carries byte streams in HTTP/2 CONNECT requests: the tunnel protocol of ambient mesh.
//
// golang.org/x/net/http2 implements HTTP/2. Its server ends a response only when the request's handler returns, and
// with that the request. An application that ends its half of a connection first therefore ends the tunnel; see
// ServerStream.CloseWrite and gentleConn.
package hbone

import (
	"fmt"
	"time"
)

const (
	// streamWindow is how much one stream may hold unread, in bytes. It bounds the memory of a tunnel.
	streamWindow = 512 << 10
	// maxStreams is how many streams a peer may open at once on one connection. A connection is one TLS session, whose
	// encryption runs on one core at a time, so a peer with more streams opens further connections.
	maxStreams = 100
	// connWindow has room for the window of every stream, so that a stream which is not read never stops another.
	connWindow = maxStreams * streamWindow
	// sendFrame is how much a client sends in one frame: with the frame header it fills one TLS record of 16 KiB.
	sendFrame = 16<<10 - frameHeader
	// receiveFrame is the largest frame that a client accepts: with the frame header it fills four TLS records.
	receiveFrame = 64<<10 - frameHeader
	frameHeader  = 9
	// maxHeaderBytes bounds the headers of one request.
	maxHeaderBytes = 16 << 10
	// idleTimeout is how long a client keeps a connection without streams.
	idleTimeout = 5 * time.Minute
	// pingAfter is how long a connection may be silent before its peer is asked whether it lives, and pingTimeout how
	// long the answer may take. A peer that does not read for pingTimeout is treated as dead, too.
	pingAfter   = 10 * time.Second
	pingTimeout = 20 * time.Second
	// closeTimeout is how long closing TLS may take: it sends a message first, which a dead peer does not read.
	closeTimeout = 250 * time.Millisecond
)

// StatusError is a CONNECT that was refused.
type StatusError struct{ Status int }

func (e StatusError) Error() string { return fmt.Sprintf("http status: %d", e.Status) }
