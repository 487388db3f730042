package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Mark is the packet mark of the proxy's own traffic, which istio-cni's rules do not redirect.
const Mark = 0x539

// backlog is how many connections may wait to be accepted; the kernel limits it to net.core.somaxconn.
const backlog = 4096

// Listen opens a marked IPv4 TCP listener on all of the namespace's addresses. SO_REUSEPORT lets a new proxy listen
// before the old one has ended, so that a rolling update loses no connection.
func (n *Namespace) Listen(port uint16) (*net.TCPListener, error) {
	var f *os.File
	err := n.Do(func() error {
		fd, err := socket()
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "listener")
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("setting SO_REUSEADDR: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("setting SO_REUSEPORT: %w", err)
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}); err != nil {
			return fmt.Errorf("binding: %w", err)
		}
		if err := unix.Listen(fd, backlog); err != nil {
			return fmt.Errorf("listening: %w", err)
		}
		return nil
	})
	if f != nil {
		defer f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("port %d in the pod: %w", port, err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("port %d in the pod: %w", port, err)
	}
	return l.(*net.TCPListener), nil
}

// Dial connects from inside the namespace with the proxy's mark. If from is valid, it is the connection's source
// address, even if it is not an address of the namespace: the application then sees its real client. The reply arrives
// because istio-cni routes packets of marked connections to the loopback device.
func (n *Namespace) Dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (*net.TCPConn, error) {
	if !to.Addr().Is4() {
		return nil, fmt.Errorf("dialling %s: IPv6 is not supported", to)
	}
	var f *os.File
	var connect error
	err := n.Do(func() error {
		fd, err := socket()
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "dialled")
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("setting TCP_NODELAY: %w", err)
		}
		if from.Is4() && from != to.Addr() {
			if err := bindForeign(fd, from); err != nil {
				return err
			}
		}
		connect = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
		return nil
	})
	if f != nil {
		defer f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("dialling %s from the pod: %w", to, err)
	}
	if err := finish(ctx, f, connect); err != nil {
		return nil, fmt.Errorf("dialling %s from the pod: %w", to, err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("dialling %s from the pod: %w", to, err)
	}
	return c.(*net.TCPConn), nil
}

// OriginalDst returns the destination that a connection had before istio-cni's rules redirected it to the proxy.
func OriginalDst(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the original destination: %w", err)
	}
	var ap netip.AddrPort
	var opt error
	err = raw.Control(func(fd uintptr) {
		// The option returns a sockaddr_in of 16 bytes; IPv6Mreq is the getter of x/sys/unix that reads that many.
		var m *unix.IPv6Mreq
		if m, opt = unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); opt != nil {
			return
		}
		b := m.Multiaddr
		ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
	})
	if err := errors.Join(err, opt); err != nil {
		return netip.AddrPort{}, fmt.Errorf("reading the original destination: %w", err)
	}
	return ap, nil
}

func socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening a socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, Mark); err != nil {
		return -1, errors.Join(fmt.Errorf("marking a socket: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// bindForeign gives the socket a source address that is not the namespace's, and a port.
//
// The port must not be one from which the owner of the address connects to the same destination: the kernel would take
// both connections for one, and the owner's would not be answered (https://github.com/istio/istio/issues/38982). Linux
// gives even ports to sockets that connect, and odd ones to sockets that are bound first, as long as there are any
// (inet_hash_connect and inet_csk_find_open_port, with the default range). So the port has to be taken by bind, as
// ztunnel does it: IP_BIND_ADDRESS_NO_PORT would leave it to connect.
func bindForeign(fd int, from netip.Addr) error {
	for _, opt := range []int{unix.IP_FREEBIND, unix.IP_TRANSPARENT} {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, opt, 1); err != nil {
			return fmt.Errorf("allowing a foreign source address (option %d): %w", opt, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return fmt.Errorf("binding to the source address %s: %w", from, err)
	}
	return nil
}

// finish waits until a non-blocking connect has succeeded or failed, or ctx ends.
func finish(ctx context.Context, f *os.File, started error) error {
	if started == nil {
		return nil
	}
	if !errors.Is(started, unix.EINPROGRESS) {
		return started
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := f.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		switch {
		case err != nil:
			result = err
			return true
		case code != 0:
			result = unix.Errno(code)
			return true
		}
		// No error yet: the connect has succeeded, and the peer has a name, or is still under way.
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	if cause := context.Cause(ctx); cause != nil && err != nil {
		return cause
	}
	return errors.Join(err, result)
}
