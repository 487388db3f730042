package hbone

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// written is a connection that records what is written.
type written struct {
	net.Conn
	out bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) { return w.out.Write(p) }

// TestGentleConn writes frames in pieces of every size: only RST_STREAM frames with NO_ERROR are missing.
func TestGentleConn(t *testing.T) {
	var all, want bytes.Buffer
	for _, out := range []io.Writer{&all, &want} {
		fr := http2.NewFramer(out, nil)
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
		_ = fr.WriteData(1, false, nil)
		_ = fr.WriteData(1, true, bytes.Repeat([]byte{3, 0, 0, 4}, 50))
		if out == &all {
			_ = fr.WriteRSTStream(1, http2.ErrCodeNo)
		}
		_ = fr.WriteRSTStream(3, http2.ErrCodeInternal)
		_ = fr.WritePing(true, [8]byte{})
		if out == &all {
			_ = fr.WriteRSTStream(5, http2.ErrCodeNo)
		}
		_ = fr.WriteGoAway(5, http2.ErrCodeNo, nil)
		if out == &all {
			_ = fr.WriteRSTStream(7, http2.ErrCodeNo)
		}
	}
	for size := 1; size <= all.Len(); size++ {
		var w written
		c := &gentleConn{Conn: &w}
		for rest := all.Bytes(); len(rest) > 0; {
			n, err := c.Write(rest[:min(size, len(rest))])
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			rest = rest[n:]
		}
		if !bytes.Equal(w.out.Bytes(), want.Bytes()) {
			t.Fatalf("in pieces of %d bytes: %q, want %q", size, w.out.Bytes(), want.Bytes())
		}
	}
}
