package inbound

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/policy"
	"ambientlab/nodeproxy/internal/ports"
	"ambientlab/nodeproxy/internal/relay"
	"ambientlab/nodeproxy/internal/telemetry"
)

const (
	handshakeTimeout = 10 * time.Second
	dialTimeout      = 10 * time.Second
	// lastWrites is how long an application that has ended its half may take to receive what its client sent.
	lastWrites = 5 * time.Second
)

// HandleHBONE serves the tunnels of one connection to port 15008. It returns when the connection has ended.
func (s *Server) HandleHBONE(ctx context.Context, c *net.TCPConn) {
	src, own := ports.Of(c.RemoteAddr()), ports.Of(c.LocalAddr())
	tc, peer, err := s.handshake(ctx, c)
	if err != nil {
		s.telemetry.Refused(false, src, own, err)
		_ = c.Close()
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	s.hbone.Serve(ctx, tc, func(r *hbone.Request) { s.serve(ctx, r, peer, src, own) })
}

func (s *Server) handshake(ctx context.Context, c *net.TCPConn) (*tls.Conn, identity.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	cert, err := s.local.Certificate(ctx)
	if err != nil {
		return nil, identity.Identity{}, err
	}
	tc := tls.Server(c, identity.ServerConfig(cert, time.Now))
	peer, err := identity.Handshake(ctx, tc)
	return tc, peer, err
}

// serve handles one CONNECT. It answers 400 to an invalid request, 401 if the policies deny it, and 503 if the
// application cannot be reached.
func (s *Server) serve(ctx context.Context, r *hbone.Request, peer identity.Identity, src, own netip.AddrPort) {
	refuse := func(status int, err error) {
		s.telemetry.Refused(false, src, own, errors.Join(err, r.Reject(status)))
	}
	if r.Method != "CONNECT" {
		refuse(400, fmt.Errorf("expected method CONNECT, got %q", r.Method))
		return
	}
	w, err := s.local.Workload(ctx)
	if err != nil {
		refuse(503, err)
		return
	}
	to, err := s.target(w, own.Addr(), r.Authority)
	if err != nil {
		refuse(400, err)
		return
	}
	count := s.telemetry.Open(telemetry.Info{
		Src: src, Dst: own, Target: r.Authority, SourceID: peer, Destination: w,
		Source:  s.workloads.ByAddress(w.Network, src.Addr()),
		Service: s.serviceFor(w, to.Port(), forwardedHost(r.Header("forwarded"))),
	})
	err = s.tunnel(ctx, r, policy.Connection{Source: peer, From: src, To: to}, count)
	count.Close(err, flag(err))
}

func (s *Server) tunnel(ctx context.Context, r *hbone.Request, c policy.Connection, count *telemetry.Connection) error {
	w, err := s.local.Workload(ctx)
	if err != nil {
		return errors.Join(err, r.Reject(503))
	}
	ctx, release, err := s.admit(ctx, w, c)
	if err != nil {
		return errors.Join(err, r.Reject(401))
	}
	defer release()
	server, err := s.dialApp(ctx, c.From.Addr(), c.To)
	if err != nil {
		return errors.Join(err, r.Reject(503))
	}
	stream, err := r.Accept()
	if err != nil {
		relay.TCP(server).Abort()
		return err
	}
	return s.carry(ctx, tunnelEnd{stream, server}, relay.TCP(server), count)
}

// tunnelEnd is the end of a tunnel to an application.
type tunnelEnd struct {
	*hbone.ServerStream
	app *net.TCPConn
}

// CloseWrite is called when the application has ended its half. That ends the tunnel once the application has received
// what the client sent before, so an application that does not read must not delay it for ever.
func (e tunnelEnd) CloseWrite() error {
	return errors.Join(e.app.SetWriteDeadline(time.Now().Add(lastWrites)), e.ServerStream.CloseWrite())
}

func splitHost(authority string) (string, uint16, error) {
	host, p, ok := strings.Cut(authority, ":")
	port, err := strconv.ParseUint(p, 10, 16)
	if !ok || host == "" || err != nil || port == 0 {
		return "", 0, fmt.Errorf("%w: invalid CONNECT address %q", errBadTarget, authority)
	}
	return host, uint16(port), nil
}

// forwardedHost returns the host in a forwarded header (RFC 7239), or "".
func forwardedHost(v string) string {
	for _, part := range strings.FieldsFunc(v, func(r rune) bool { return r == ';' || r == ',' }) {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if ok && strings.EqualFold(name, "host") {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}
