package inbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"ambientlab/nodeproxy/internal/netns"
	"ambientlab/nodeproxy/internal/policy"
	"ambientlab/nodeproxy/internal/ports"
	"ambientlab/nodeproxy/internal/relay"
	"ambientlab/nodeproxy/internal/telemetry"
	"ambientlab/nodeproxy/internal/workload"
)

// probeSource is the source address that istio-cni gives to the kubelet's probes (HOST_PROBE_SNAT_IP). Its rules do not
// redirect them to the proxy. If one arrives nevertheless, the policies do not apply to it.
func probeSource() netip.Addr { return netip.AddrFrom4([4]byte{169, 254, 7, 127}) }

// HandlePlaintext serves one redirected connection, if the policies allow a client without an identity. It returns when
// the connection has ended.
func (s *Server) HandlePlaintext(ctx context.Context, c *net.TCPConn) {
	client := relay.TCP(c)
	src := ports.Of(c.RemoteAddr())
	dst, err := netns.OriginalDst(c)
	if err != nil {
		dst = ports.Of(c.LocalAddr())
	}
	refuse := func(err error) {
		s.telemetry.Refused(false, src, dst, err)
		client.Abort()
	}
	if err := isOwn(dst); err != nil {
		refuse(err)
		return
	}
	w, err := s.local.Workload(ctx)
	if err != nil {
		refuse(err)
		return
	}
	count := s.telemetry.Open(telemetry.Info{
		Src: src, Dst: dst, Source: s.workloads.ByAddress(w.Network, src.Addr()), Destination: w,
		Service: s.serviceFor(w, dst.Port(), ""),
	})
	err = s.plaintext(ctx, client, src, dst, w, count)
	count.Close(err, flag(err))
}

func (s *Server) plaintext(
	ctx context.Context, client relay.End, src, dst netip.AddrPort, w *workload.Workload, count *telemetry.Connection,
) error {
	if src.Addr() != probeSource() {
		watched, release, err := s.admit(ctx, w, policy.Connection{From: src, To: dst})
		if err != nil {
			client.Abort()
			return err
		}
		defer release()
		ctx = watched
	}
	server, err := s.dialApp(ctx, src.Addr(), dst)
	if err != nil {
		client.Abort()
		return err
	}
	return s.carry(ctx, client, relay.TCP(server), count)
}

// errBadTarget is the error of a CONNECT to a target that is not in the pod.
var errBadTarget = errors.New("CONNECT target refused")

// target returns the application's address for the authority of a CONNECT. own is the address at which the tunnel
// arrived. The proxy connects to its own pod only: otherwise every client with a certificate could reach every address
// through every pod.
func (s *Server) target(w *workload.Workload, own netip.Addr, authority string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(authority); err == nil {
		to := netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		if to.Addr() != own {
			return netip.AddrPort{}, fmt.Errorf("%w: ip mismatch: %s != %s", errBadTarget, own, to.Addr())
		}
		return checked(to)
	}
	host, port, err := splitHost(authority)
	if err != nil {
		return netip.AddrPort{}, err
	}
	svc := s.workloads.ServiceByHostname(host, w.Namespace)
	if svc == nil {
		return netip.AddrPort{}, fmt.Errorf("%w: no service for hostname %q", errBadTarget, host)
	}
	mapped, serves := w.Services[svc.Key()]
	if !serves {
		return netip.AddrPort{}, fmt.Errorf("%w: %s does not serve %s", errBadTarget, w.UID, svc.Key())
	}
	to := mapped[port]
	if to == 0 {
		to = svc.Ports[port]
	}
	if to == 0 {
		return netip.AddrPort{}, fmt.Errorf("%w: service %s has no port %d", errBadTarget, svc.Key(), port)
	}
	return checked(netip.AddrPortFrom(own, to))
}

func checked(to netip.AddrPort) (netip.AddrPort, error) {
	if to.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%w: port 0", errBadTarget)
	}
	if err := isOwn(to); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", errBadTarget, err)
	}
	return to, nil
}
