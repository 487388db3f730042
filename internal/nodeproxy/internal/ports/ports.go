// Package ports names the ports that the proxy takes in each pod.
package ports

import (
	"errors"
	"net"
	"net/netip"
)

// Ports in each pod; istio-cni's rules redirect to the first two, and leave the third alone.
const (
	Outbound  = 15001
	Plaintext = 15006
	HBONE     = 15008
)

// ErrSelfCall refuses a connection whose destination is the proxy itself: it would go round for ever.
var ErrSelfCall = errors.New("attempted recursive call to ourselves")

// IsOwn says whether a port is one of the proxy's.
func IsOwn(port uint16) bool { return port == Outbound || port == Plaintext || port == HBONE }

// Of reads the address of a TCP connection's end.
func Of(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
