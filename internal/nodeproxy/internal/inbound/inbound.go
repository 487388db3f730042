// Package inbound serves the connections to a pod: tunnels on port 15008, and plain connections that istio-cni
// redirects to port 15006.
package inbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/local"
	"ambientlab/nodeproxy/internal/netns"
	"ambientlab/nodeproxy/internal/policy"
	"ambientlab/nodeproxy/internal/ports"
	"ambientlab/nodeproxy/internal/relay"
	"ambientlab/nodeproxy/internal/telemetry"
	"ambientlab/nodeproxy/internal/workload"
)

// Server serves one pod's inbound connections.
type Server struct {
	local     *local.Pod
	network   *netns.Namespace
	workloads *workload.Store
	policies  *policy.Store
	telemetry *telemetry.Telemetry
	relay     *relay.Relay
	hbone     *hbone.Server
	unwatch   func()
	closed    chan struct{}
	close     func()

	mu   sync.Mutex
	open map[*admitted]struct{}
}

// admitted is a connection that the policies have allowed, and that a later policy may end.
type admitted struct {
	conn policy.Connection
	end  context.CancelCauseFunc
}

// New returns a server of the pod local. The pods of a node share tunnels, which serves their HBONE connections.
func New(
	local *local.Pod, network *netns.Namespace, workloads *workload.Store, policies *policy.Store,
	t *telemetry.Telemetry, r *relay.Relay, tunnels *hbone.Server,
) *Server {
	s := &Server{
		local: local, network: network, workloads: workloads, policies: policies, telemetry: t, relay: r,
		hbone:  tunnels,
		closed: make(chan struct{}), open: map[*admitted]struct{}{},
	}
	s.close = sync.OnceFunc(func() { close(s.closed) })
	s.unwatch = policies.Watch(s.recheck)
	go s.watchSelf()
	return s
}

// watchSelf rechecks when the pod's own workload changes, which names the policies that select it.
func (s *Server) watchSelf() {
	var last *workload.Workload
	for {
		changed := s.workloads.Changed()
		if w := s.known(); w != last {
			last = w
			s.recheck()
		}
		select {
		case <-changed:
		case <-s.closed:
			return
		}
	}
}

// known returns the pod's workload, or nil if the control plane has not sent it yet.
func (s *Server) known() *workload.Workload {
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	w, err := s.local.Workload(expired)
	if err != nil {
		return nil
	}
	return w
}

// Close stops watching the policies. Connections end with the context of their Handle function.
func (s *Server) Close() {
	s.unwatch()
	s.close()
}

// errPolicyChanged ends a connection that earlier policies allowed.
var errPolicyChanged = errors.New("connection closed due to policy change")

// recheck ends the connections that the current policies deny.
func (s *Server) recheck() {
	s.mu.Lock()
	open := make([]*admitted, 0, len(s.open))
	for p := range s.open {
		open = append(open, p)
	}
	s.mu.Unlock()
	if len(open) == 0 {
		return
	}
	w := s.known()
	if w == nil {
		return
	}
	for _, p := range open {
		if err := s.policies.Check(w.Namespace, w.Policies, p.conn); err != nil {
			p.end(errPolicyChanged)
		}
	}
}

// admit returns an error if the policies deny a connection. Otherwise the returned context ends when later policies
// deny it; release ends the watch.
func (s *Server) admit(
	ctx context.Context, w *workload.Workload, c policy.Connection,
) (_ context.Context, release func(), err error) {
	ctx, end := context.WithCancelCause(ctx)
	p := &admitted{conn: c, end: end}
	// The watch starts before the check, so that no policy that arrives in between is missed.
	s.mu.Lock()
	s.open[p] = struct{}{}
	s.mu.Unlock()
	release = func() {
		s.mu.Lock()
		delete(s.open, p)
		s.mu.Unlock()
		end(nil)
	}
	if err := s.policies.Check(w.Namespace, w.Policies, c); err != nil {
		release()
		return nil, nil, err
	}
	return ctx, release, nil
}

// serviceFor returns the service that a client probably connected to, for telemetry: the named one, or one that maps to
// the port.
func (s *Server) serviceFor(w *workload.Workload, port uint16, named string) *workload.Service {
	list := s.workloads.ServicesOf(w)
	for _, svc := range list {
		if named != "" && svc.Hostname == named {
			return svc
		}
	}
	for _, svc := range list {
		for from, to := range svc.Ports {
			if to == port || w.Services[svc.Key()][from] == port {
				return svc
			}
		}
	}
	return nil
}

// dialApp connects to the pod's application with the client's source address.
func (s *Server) dialApp(ctx context.Context, from netip.Addr, to netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := s.network.Dial(ctx, from, to)
	if err != nil {
		return nil, fmt.Errorf("connection failed: %w", err)
	}
	return c, nil
}

// carry relays until both sides have ended, or ctx ends.
func (s *Server) carry(ctx context.Context, client, server relay.End, count *telemetry.Connection) error {
	stop := context.AfterFunc(ctx, func() {
		client.Abort()
		server.Abort()
	})
	defer stop()
	err := s.relay.Run(client, server, count)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func flag(err error) telemetry.Flag {
	var denied policy.Denial
	switch {
	case err == nil:
		return telemetry.FlagNone
	case errors.As(err, &denied), errors.Is(err, errPolicyChanged):
		return telemetry.FlagDenied
	}
	return telemetry.FlagConnect
}

func isOwn(to netip.AddrPort) error {
	if ports.IsOwn(to.Port()) {
		return ports.ErrSelfCall
	}
	return nil
}
