package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"ambientlab/internal/problem"
)

// Tunnel is one connection through the API server to one port of one pod, over which any number of connections are
// opened, as kubectl port-forward does. It is dialled when first used, and again when it was lost.
//
// client-go's own PortForwarder is not used: it needs a local port even for a client in this process, reports errors to
// the process-wide log instead of the caller, and ends when the pod does.
type Tunnel struct {
	namespace, pod string
	port           int
	dial           func() (httpstream.Connection, error)

	mu     sync.Mutex
	conn   httpstream.Connection
	nextID int
	closed bool
}

// Tunnel prepares a tunnel; nothing is dialled yet.
func (f *Forwarder) Tunnel(namespace, pod string, port int) *Tunnel {
	t := &Tunnel{namespace: namespace, pod: pod, port: port}
	t.dial = func() (httpstream.Connection, error) { return dialPod(f.config, namespace, pod) }
	return t
}

// dialPod asks the API server for a port-forward connection: tunnelled through a WebSocket, and where that is refused
// (an older server, a proxy that does not know it) by the SPDY upgrade.
func dialPod(config *rest.Config, namespace, pod string) (httpstream.Connection, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's address: %w", err)
	}
	target := base.JoinPath("api/v1/namespaces", url.PathEscape(namespace), "pods", url.PathEscape(pod), "portforward")
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, fmt.Errorf("preparing the SPDY transport: %w", err)
	}
	overSPDY := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, config)
	if err != nil {
		return nil, fmt.Errorf("preparing the WebSocket transport: %w", err)
	}
	dialer := portforward.NewFallbackDialerForStreaming(overWebSocket, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	conn, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	return conn, err
}

func (t *Tunnel) String() string { return fmt.Sprintf("pod %s/%s port %d", t.namespace, t.pod, t.port) }

// connection gives the connection in use, dialling where there is none that lives.
func (t *Tunnel) connection(ctx context.Context) (conn httpstream.Connection, id int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, 0, net.ErrClosed
	}
	t.nextID++
	if t.conn != nil {
		select {
		case <-t.conn.CloseChan():
			t.conn = nil
		default:
			return t.conn, t.nextID, nil
		}
	}
	type dialled struct {
		conn httpstream.Connection
		err  error
	}
	// The dialer knows no context; a connection that comes too late is closed.
	result := make(chan dialled, 1)
	go func() {
		c, err := t.dial()
		result <- dialled{c, err}
	}()
	select {
	case r := <-result:
		if r.err != nil {
			return nil, 0, r.err
		}
		t.conn = r.conn
		return t.conn, t.nextID, nil
	case <-ctx.Done():
		go func() {
			if r := <-result; r.conn != nil {
				_ = r.conn.Close()
			}
		}()
		return nil, 0, context.Cause(ctx)
	}
}

// DialContext opens a connection to the pod's port. A connection to the API server that turns out to be dead is
// replaced once. The error is a problem.ProxyUnreachable with the API server's or kubelet's words.
func (t *Tunnel) DialContext(ctx context.Context) (net.Conn, error) {
	s, err := t.open(ctx)
	if errors.Is(err, errLost) {
		s, err = t.open(ctx)
	}
	if err != nil {
		return nil, t.problem(err)
	}
	return s, nil
}

// errLost says that the connection to the API server ended.
var errLost = errors.New("the connection to the pod was lost; it was stopped or has restarted")

// open opens the two streams that make up a connection: one for data, and one on which kubelet says what goes wrong.
func (t *Tunnel) open(ctx context.Context) (*stream, error) {
	conn, id, err := t.connection(ctx)
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	headers.Set(corev1.PortHeader, strconv.Itoa(t.port))
	headers.Set(corev1.PortForwardRequestIDHeader, strconv.Itoa(id))
	errorStream, err := createStream(ctx, conn, headers)
	if err != nil {
		t.unlessCancelled(ctx, conn)
		return nil, fmt.Errorf("opening the error stream: %w", err)
	}
	// Nothing is written to it.
	_ = errorStream.Close()
	headers = headers.Clone()
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := createStream(ctx, conn, headers)
	if err != nil {
		_ = errorStream.Reset()
		conn.RemoveStreams(errorStream)
		t.unlessCancelled(ctx, conn)
		return nil, fmt.Errorf("opening the data stream: %w", err)
	}
	s := &stream{tunnel: t, conn: conn, data: data, errs: errorStream, listened: make(chan struct{})}
	go s.listenForRefusal()
	return s, nil
}

// createStream opens a stream, unless the connection or ctx ends first: the library itself waits 30 seconds for an
// answer, even on a connection that it knows to be closed.
func createStream(ctx context.Context, conn httpstream.Connection, headers http.Header) (httpstream.Stream, error) {
	type created struct {
		stream httpstream.Stream
		err    error
	}
	result := make(chan created, 1)
	go func() {
		s, err := conn.CreateStream(headers)
		result <- created{s, err}
	}()
	select {
	case r := <-result:
		return r.stream, r.err
	case <-conn.CloseChan():
		return nil, errLost
	case <-ctx.Done():
		go func() {
			if r := <-result; r.stream != nil {
				_ = r.stream.Reset()
				conn.RemoveStreams(r.stream)
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (t *Tunnel) problem(err error) error {
	return problem.New(problem.ProxyUnreachable, err, "no connection to %s", t)
}

// unlessCancelled drops a connection on which a stream could not be opened, unless that was because the caller gave up:
// others may be using it.
func (t *Tunnel) unlessCancelled(ctx context.Context, conn httpstream.Connection) {
	if ctx.Err() == nil {
		t.drop(conn)
	}
}

// drop forgets a connection that no longer works.
func (t *Tunnel) drop(conn httpstream.Connection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn == conn {
		t.conn = nil
	}
	_ = conn.Close()
}

// Close ends the tunnel and every connection in it.
func (t *Tunnel) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.conn == nil {
		return nil
	}
	conn := t.conn
	t.conn = nil
	return conn.Close()
}
