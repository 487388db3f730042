//go:build e2e

package main

import (
	"bytes"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// wire records what passes the bridge's ports.
type wire struct {
	fd      int
	packets [][]byte
	ended   chan struct{}
	closing atomic.Bool
}

// capture records all packets in the fabric until stop.
func (l *lab) capture() *wire {
	l.t.Helper()
	w := &wire{ended: make(chan struct{})}
	all := uint16(unix.ETH_P_ALL)
	fabric := l.open(l.fabric)
	err := fabric.Do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all<<8|all>>8))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	tv := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(w.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		l.t.Fatal(err)
	}
	go func() {
		defer close(w.ended)
		buf := make([]byte, 64<<10)
		for {
			n, err := unix.Read(w.fd, buf)
			switch {
			case err == nil:
				w.packets = append(w.packets, bytes.Clone(buf[:n]))
			case errors.Is(err, unix.EAGAIN) && w.closing.Load():
				return
			case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			default:
				return
			}
		}
	}()
	return w
}

// stop counts the packets that hold text, and the TLS application records to or from port 15008.
func (w *wire) stop(text string) (plain, tls int) {
	w.closing.Store(true)
	<-w.ended
	_ = unix.Close(w.fd)
	for _, p := range w.packets {
		if bytes.Contains(p, []byte(text)) {
			plain++
		}
		// Ethernet, IPv4 without options (20 bytes), TCP.
		if len(p) < 14+20+20 || p[12] != 8 || p[14] != 0x45 || p[23] != unix.IPPROTO_TCP {
			continue
		}
		tcp := p[34:]
		data := tcp[min(int(tcp[12]>>4)*4, len(tcp)):]
		from, to := uint16(tcp[0])<<8|uint16(tcp[1]), uint16(tcp[2])<<8|uint16(tcp[3])
		if (from == 15008 || to == 15008) && len(data) > 5 && data[0] == 23 && data[1] == 3 {
			tls++
		}
	}
	return plain, tls
}
