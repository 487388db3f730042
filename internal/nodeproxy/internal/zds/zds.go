// Package zds receives from istio-cni which pods of the node to serve.
//
// istio-cni listens on a seqpacket socket. The proxy connects and sends a hello. Each message that follows is about one
// pod, with its network namespace as a file descriptor, and istio-cni waits for the answer to it. It starts a new pod
// only after an answer without an error, so that no pod is redirected before the proxy listens.
package zds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"istio.io/istio/pkg/zdsapi"
)

const (
	// maxMessage is the largest message; a pod's names need at most 253 + 63 + 253 bytes.
	maxMessage = 64 << 10
	retryMin   = 20 * time.Millisecond
	retryMax   = 5 * time.Second
	retryPods  = 5 * time.Second
)

// Pod is a pod to serve.
type Pod struct {
	UID, Name, Namespace, ServiceAccount string
}

// Pods serves pods. Its methods are called from one goroutine.
type Pods interface {
	// Add starts to serve a pod, and returns once the proxy listens in it. It owns netns, also if it fails. It does
	// nothing for a pod that is served already in the same namespace. A pod that could not be started is kept for
	// Retry.
	Add(pod Pod, netns *os.File) error
	// Delete stops serving a pod at once.
	Delete(uid string)
	// Keep stops serving every pod whose UID is not in the set, and does not retry those.
	Keep(uids map[string]bool)
	// Retry starts the pods that could not be started before.
	Retry()
	// Waiting reports whether pods wait for Retry.
	Waiting() bool
}

// Client is a client of istio-cni.
type Client struct {
	path    string
	pods    Pods
	log     *slog.Logger
	onReady func(bool)
}

// New returns a client of the socket at path. It calls onReady with true once all pods of a snapshot are served, and
// with false when the connection is lost.
func New(path string, pods Pods, log *slog.Logger, onReady func(bool)) *Client {
	return &Client{path: path, pods: pods, log: log, onReady: onReady}
}

// Run connects, and connects again when the connection is lost, until ctx ends. Pods are served without a connection.
func (c *Client) Run(ctx context.Context) {
	pause := retryMin
	for ctx.Err() == nil {
		synced, err := c.session(ctx)
		c.onReady(false)
		if ctx.Err() != nil {
			return
		}
		if synced {
			pause = retryMin
		}
		c.log.Warn("connection to istio-cni lost, will reconnect; pods are still served", "error", err, "in",
			pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

type received struct {
	msg *message
	err error
}

// session serves one connection, and reports whether it received a whole snapshot.
func (c *Client) session(ctx context.Context) (synced bool, err error) {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: c.path, Net: "unixpacket"})
	if err != nil {
		return false, fmt.Errorf("connecting to istio-cni: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := send(conn, &zdsapi.ZdsHello{Version: zdsapi.Version_V1}); err != nil {
		return false, fmt.Errorf("greeting istio-cni: %w", err)
	}
	incoming := make(chan received)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			m, err := receive(conn)
			select {
			case incoming <- received{m, err}:
			case <-done:
				m.close()
				return
			}
			if err != nil && !errors.Is(err, errBadMessage) {
				return
			}
		}
	}()
	s := session{c: c, seen: map[string]bool{}}
	tick := time.NewTicker(retryPods)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.retry()
			continue
		case r := <-incoming:
			if r.err != nil && !errors.Is(r.err, errBadMessage) {
				return s.snapshot, fmt.Errorf("reading from istio-cni: %w", r.err)
			}
			fatal := r.err
			answer := r.err
			if r.err == nil {
				fatal, answer = s.handle(r.msg)
			}
			ack := &zdsapi.Ack{}
			if answer != nil {
				c.log.Error("message from istio-cni refused", "error", answer)
				ack.Error = answer.Error()
			}
			resp := &zdsapi.WorkloadResponse{Payload: &zdsapi.WorkloadResponse_Ack{Ack: ack}}
			if err := send(conn, resp); err != nil {
				return s.snapshot, fmt.Errorf("answering istio-cni: %w", err)
			}
			if fatal != nil {
				return s.snapshot, fatal
			}
		}
	}
}

type session struct {
	c        *Client
	seen     map[string]bool
	snapshot bool
}

// handle processes a message and returns the error to answer. A fatal error violates the protocol, and ends the
// connection.
func (s *session) handle(m *message) (fatal, answer error) {
	switch p := m.req.GetPayload().(type) {
	case *zdsapi.WorkloadRequest_Add:
		info := p.Add.GetWorkloadInfo()
		pod := Pod{
			UID: p.Add.GetUid(), Name: info.GetName(), Namespace: info.GetNamespace(),
			ServiceAccount: info.GetServiceAccount(),
		}
		s.seen[pod.UID] = true
		s.c.log.Info("pod received", "uid", pod.UID, "name", pod.Name, "namespace", pod.Namespace)
		err := s.c.pods.Add(pod, m.netns)
		if err != nil {
			err = fmt.Errorf("failure to start proxy: %w", err)
		}
		s.report()
		return nil, err
	case *zdsapi.WorkloadRequest_Keep:
		if s.snapshot {
			err := errors.New("keep after the snapshot")
			return err, err
		}
		s.seen[p.Keep.GetUid()] = true
	case *zdsapi.WorkloadRequest_Del:
		s.c.log.Info("pod deleted", "uid", p.Del.GetUid())
		delete(s.seen, p.Del.GetUid())
		s.c.pods.Delete(p.Del.GetUid())
		s.report()
	case *zdsapi.WorkloadRequest_SnapshotSent:
		if s.snapshot {
			err := errors.New("second snapshot on one connection")
			return err, err
		}
		s.snapshot = true
		s.c.pods.Keep(s.seen)
		s.c.log.Info("snapshot from istio-cni complete", "pods", len(s.seen))
		s.seen = map[string]bool{}
		s.report()
	}
	return nil, nil
}

func (s *session) retry() {
	if s.c.pods.Waiting() {
		s.c.pods.Retry()
		s.report()
	}
}

func (s *session) report() { s.c.onReady(s.snapshot && !s.c.pods.Waiting()) }
