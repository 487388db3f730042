// Package pods serves the pods of the node: the listeners, the identity and the open connections of each pod.
package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/inbound"
	"ambientlab/nodeproxy/internal/local"
	"ambientlab/nodeproxy/internal/netns"
	"ambientlab/nodeproxy/internal/outbound"
	"ambientlab/nodeproxy/internal/policy"
	"ambientlab/nodeproxy/internal/ports"
	"ambientlab/nodeproxy/internal/relay"
	"ambientlab/nodeproxy/internal/telemetry"
	"ambientlab/nodeproxy/internal/workload"
	"ambientlab/nodeproxy/internal/zds"
)

// Deps are shared by all pods of the node.
type Deps struct {
	Home      *os.File
	Workloads *workload.Store
	Policies  *policy.Store
	Certs     *identity.Store
	Telemetry *telemetry.Telemetry
	HBONE     *hbone.Server
	Log       *slog.Logger
}

// acceptPause is the time between a failed accept and the next one.
const acceptPause = 100 * time.Millisecond

// errStopped ends the connections of a pod that is no longer served.
var errStopped = errors.New("connection closed due to connection drain")

// proxy serves one pod.
type proxy struct {
	pod   zds.Pod
	ns    *netns.Namespace
	local *local.Pod
	in    *inbound.Server
	out   *outbound.Server

	listeners []*net.TCPListener
	end       context.CancelCauseFunc
	accepting sync.WaitGroup
	handling  sync.WaitGroup
}

// start opens the listeners and serves. It owns ns, also if it fails.
func start(d Deps, pod zds.Pod, ns *netns.Namespace) (_ *proxy, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, ns.Close())
		}
	}()
	p := &proxy{pod: pod, ns: ns}
	var bound []*net.TCPListener
	for _, port := range []uint16{ports.Outbound, ports.Plaintext, ports.HBONE} {
		l, err := ns.Listen(port)
		if err != nil {
			for _, b := range bound {
				err = errors.Join(err, b.Close())
			}
			return nil, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
		bound = append(bound, l)
	}
	p.listeners = bound
	ctx, end := context.WithCancelCause(context.Background())
	p.end = end
	ref := workload.Ref{Name: pod.Name, Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount}
	p.local = local.New(ctx, ref, d.Workloads, d.Certs)
	copier := &relay.Relay{}
	p.in = inbound.New(p.local, ns, d.Workloads, d.Policies, d.Telemetry, copier, d.HBONE)
	p.out = outbound.New(p.local, ns, d.Workloads, d.Telemetry, copier)
	for i, handle := range []func(context.Context, *net.TCPConn){p.out.Handle, p.in.HandlePlaintext, p.in.HandleHBONE} {
		source := i == 0
		p.accepting.Go(func() { p.accept(ctx, d, bound[i], source, handle) })
	}
	return p, nil
}

func (p *proxy) accept(
	ctx context.Context, d Deps, l *net.TCPListener, source bool, handle func(context.Context, *net.TCPConn),
) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Probably out of file descriptors or memory, which connections release when they end.
			d.Log.Error("accepting a connection failed, will retry", "pod", p.pod.Namespace+"/"+p.pod.Name, "addr",
				l.Addr().String(), "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		closed := d.Telemetry.Socket(source)
		p.handling.Go(func() {
			defer closed()
			handle(ctx, c)
		})
	}
}

// stopListening closes the listeners, so that another proxy that listens in the pod gets every new connection.
func (p *proxy) stopListening() {
	for _, l := range p.listeners {
		_ = l.Close()
	}
	p.accepting.Wait()
}

// drain lets connections end by themselves until ctx ends, and then stops. The listeners must be closed.
func (p *proxy) drain(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		p.handling.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	p.stop()
}

// stop resets the pod's connections and releases its resources.
func (p *proxy) stop() {
	p.stopListening()
	p.end(errStopped)
	p.in.Close()
	p.out.Close()
	p.handling.Wait()
	p.local.Release()
	_ = p.ns.Close()
}
