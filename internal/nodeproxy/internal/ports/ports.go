// Package ports names the ports on which the proxy listens in each pod.
package ports

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Ports in each pod. istio-cni's rules redirect to the first two; peers connect to the third.
const (
	Outbound  = 15001
	Plaintext = 15006
	HBONE     = 15008
)

// ErrSelfCall is the error of a connection whose destination is the proxy itself: it would loop.
var ErrSelfCall = errors.New("attempted recursive call to ourselves")

// IsOwn reports whether a port is one of the proxy's.
func IsOwn(port uint16) bool { return port == Outbound || port == Plaintext || port == HBONE }

// Parse checks a port number of the control plane.
func Parse(p uint32) (uint16, error) {
	if p > 65535 {
		return 0, fmt.Errorf("%d is not a port number", p)
	}
	return uint16(p), nil
}

// Of returns the address of a TCP connection's end.
func Of(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
