//go:build e2e && e2efull

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// capture holds the packets of one node, from all of its interfaces but the loopback device.
type capture struct {
	fd      int
	packets [][]byte
	closing atomic.Bool
	ended   chan struct{}
}

// capture records what passes through a node from here on.
func (l *lab) capture(t *testing.T, node string) *capture {
	t.Helper()
	container, err := l.docker.ContainerInspect(t.Context(), node, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := &capture{ended: make(chan struct{})}
	opened := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine, as it is not unlocked: nothing else ever runs in the node's namespace.
		runtime.LockOSThread()
		opened <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", container.Container.State.Pid))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering the network namespace of %s: %w", node, err)
			}
			const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // in network byte order
			if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
				return err
			}
			wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
			return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
		}()
	}()
	if err := <-opened; err != nil {
		t.Fatalf("capturing on %s: %v", node, err)
	}
	go c.read()
	return c
}

func (c *capture) read() {
	defer close(c.ended)
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case err == nil && n > 34 && buf[26] != 127: // not from 127.0.0.0/8: exec streams pass there in the clear
			c.packets = append(c.packets, bytes.Clone(buf[:n]))
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN) && !c.closing.Load():
		default:
			return
		}
	}
}

// stop ends the capture and counts packets that hold text in the clear, and TLS records from or to port 15008.
func (c *capture) stop(text string) (clear, tls int) {
	c.closing.Store(true)
	<-c.ended
	_ = unix.Close(c.fd)
	for _, p := range c.packets {
		if bytes.Contains(p, []byte(text)) {
			clear++
		}
		const ethernet, ipv4 = 14, 0x0800
		if len(p) < ethernet+40 || int(p[12])<<8|int(p[13]) != ipv4 || p[ethernet+9] != unix.IPPROTO_TCP {
			continue
		}
		tcp := p[ethernet+int(p[ethernet]&0xf)*4:]
		if len(tcp) < 20 {
			continue
		}
		from, to := int(tcp[0])<<8|int(tcp[1]), int(tcp[2])<<8|int(tcp[3])
		data := tcp[min(int(tcp[12]>>4)*4, len(tcp)):]
		if (from == 15008 || to == 15008) && len(data) > 5 && (data[0] == 22 || data[0] == 23) && data[1] == 3 {
			tls++
		}
	}
	return clear, tls
}
