// Package outbound serves the connections that a pod opens: it sends them to a waypoint or to another pod by HBONE, or
// as plain TCP.
package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/local"
	"ambientlab/nodeproxy/internal/netns"
	"ambientlab/nodeproxy/internal/ports"
	"ambientlab/nodeproxy/internal/relay"
	"ambientlab/nodeproxy/internal/telemetry"
	"ambientlab/nodeproxy/internal/workload"
)

// Server serves one pod's outbound connections.
type Server struct {
	local     *local.Pod
	network   *netns.Namespace
	workloads *workload.Store
	telemetry *telemetry.Telemetry
	relay     *relay.Relay
	pool      *pool
}

// New returns a server.
func New(
	local *local.Pod, network *netns.Namespace, workloads *workload.Store, t *telemetry.Telemetry, r *relay.Relay,
) *Server {
	return &Server{local: local, network: network, workloads: workloads, telemetry: t, relay: r, pool: newPool()}
}

// Close closes every HBONE connection. The tunnel of a Handle that has returned has sent its last byte.
func (s *Server) Close() { s.pool.close() }

// Handle serves one redirected connection. It returns when the connection has ended.
func (s *Server) Handle(ctx context.Context, c *net.TCPConn) {
	src := ports.Of(c.RemoteAddr())
	client := relay.TCP(c)
	dst, err := netns.OriginalDst(c)
	if err != nil {
		dst = ports.Of(c.LocalAddr())
	}
	if ports.IsOwn(dst.Port()) && (err != nil || dst.Addr().IsLoopback() || dst == ports.Of(c.LocalAddr())) {
		s.telemetry.Refused(true, src, dst, ports.ErrSelfCall)
		client.Abort()
		return
	}
	w, route, err := s.route(ctx, dst)
	if err != nil {
		s.telemetry.Refused(true, src, dst, err)
		client.Abort()
		return
	}
	info := telemetry.Info{
		Outbound: true, Src: src, Dst: route.Dial, Source: w, Destination: route.Destination, Service: route.Service,
	}
	if route.HBONE() {
		info.Target, info.SourceID = route.Tunnel.String(), w.Identity()
	}
	count := s.telemetry.Open(info)
	server, err := s.open(ctx, src, w, route)
	if err != nil {
		client.Abort()
		count.Close(err, flag(err))
		return
	}
	stop := context.AfterFunc(ctx, func() {
		client.Abort()
		server.Abort()
	})
	defer stop()
	err = s.relay.Run(client, server, count)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	count.Close(err, flag(err))
}

func (s *Server) route(ctx context.Context, dst netip.AddrPort) (*workload.Workload, *workload.Route, error) {
	w, err := s.local.Workload(ctx)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.workloads.Route(w, dst)
	return w, r, err
}

func (s *Server) open(
	ctx context.Context, src netip.AddrPort, w *workload.Workload, r *workload.Route,
) (relay.End, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	if !r.HBONE() {
		c, err := s.network.Dial(ctx, netip.Addr{}, r.Dial)
		if err != nil {
			return nil, fmt.Errorf("connection failed: %w", err)
		}
		return relay.TCP(c), nil
	}
	k := newKey(w.Identity(), r.Dial, r.Peers)
	dial := func(ctx context.Context) (*hbone.Conn, error) { return s.dial(ctx, r) }
	stream, err := s.pool.connect(ctx, k, dial, r.Tunnel.String(), tunnelHeaders(src, w, r.Service))
	if err != nil {
		return nil, err
	}
	return stream, nil
}

// dial opens an HBONE connection with the pod's identity. The peer must have one of the route's identities.
func (s *Server) dial(ctx context.Context, r *workload.Route) (*hbone.Conn, error) {
	cert, err := s.local.Certificate(ctx)
	if err != nil {
		return nil, fmt.Errorf("identity error: %w", err)
	}
	c, err := s.network.Dial(ctx, netip.Addr{}, r.Dial)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("connection timed out, maybe a NetworkPolicy is blocking HBONE port %d: %w", ports.HBONE,
			err)
	}
	if err != nil {
		return nil, fmt.Errorf("connection failed: %w", err)
	}
	tc := tls.Client(c, identity.ClientConfig(cert, r.Peers, time.Now))
	if _, err := identity.Handshake(ctx, tc); err != nil {
		_ = c.Close()
		return nil, tlsError{err}
	}
	return hbone.Client(tc)
}

// tlsError is the error of a failed handshake, which has a flag of its own in the metrics.
type tlsError struct{ err error }

func (e tlsError) Error() string { return e.err.Error() }
func (e tlsError) Unwrap() error { return e.err }

func flag(err error) telemetry.Flag {
	var t tlsError
	switch {
	case err == nil:
		return telemetry.FlagNone
	case errors.As(err, &t):
		return telemetry.FlagTLS
	}
	return telemetry.FlagConnect
}
