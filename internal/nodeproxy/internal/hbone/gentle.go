package hbone

import (
	"encoding/binary"
	"net"

	"golang.org/x/net/http2"
)

// gentleConn removes RST_STREAM frames with NO_ERROR from what a server writes. The server sends one right after the
// end of a response if its request has not ended. RFC 9113, section 8.1, permits that, but Envoy then drops the part of
// the response that it has not forwarded yet. Without the frame a peer receives the whole response, and is reset if it
// goes on sending: the server has closed the stream, and answers with STREAM_CLOSED.
type gentleConn struct {
	net.Conn
	header []byte // of the next frame, as far as it was written; of RST_STREAM frames, the payload as well
	rest   int    // bytes of the current frame that are still to be written
	out    []byte
}

const resetLength = frameHeader + 4

// Write implements net.Conn. The server writes from one goroutine at a time.
func (c *gentleConn) Write(p []byte) (int, error) {
	if c.rest == 0 && len(c.header) == 0 && len(p) > resetLength && frameHeader+length(p) == len(p) {
		return c.Conn.Write(p) // one whole frame, as in bulk transfer: no copy
	}
	c.out = c.out[:0]
	for left := p; len(left) > 0; {
		if c.rest > 0 {
			n := min(c.rest, len(left))
			c.out = append(c.out, left[:n]...)
			c.rest -= n
			left = left[n:]
			continue
		}
		n := min(c.missing(), len(left))
		c.header = append(c.header, left[:n]...)
		left = left[n:]
		if c.missing() > 0 {
			continue
		}
		if !c.isReset() {
			c.rest = length(c.header)
			c.out = append(c.out, c.header...)
		} else if binary.BigEndian.Uint32(c.header[frameHeader:]) != uint32(http2.ErrCodeNo) {
			c.out = append(c.out, c.header...)
		}
		c.header = c.header[:0]
	}
	if len(c.out) == 0 {
		return len(p), nil
	}
	if _, err := c.Conn.Write(c.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// missing returns how many bytes of the header are still to be written.
func (c *gentleConn) missing() int {
	if len(c.header) >= frameHeader && c.isReset() {
		return resetLength - len(c.header)
	}
	return max(frameHeader-len(c.header), 0)
}

func (c *gentleConn) isReset() bool {
	return http2.FrameType(c.header[3]) == http2.FrameRSTStream && length(c.header) == resetLength-frameHeader
}

// length returns the length of a frame's payload, which its header begins with.
func length(frame []byte) int { return int(frame[0])<<16 | int(frame[1])<<8 | int(frame[2]) }
