// Package zds tells the node proxies which pods they serve, in istio-cni's place: it listens where istio-cni would, and
// hands over each pod's network namespace.
package zds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/zdsapi"
	corev1 "k8s.io/api/core/v1"
)

// socketPath is where the node proxy looks for istio-cni on its node (istio.io/istio, manifests/charts/ztunnel).
const socketPath = "var/run/ztunnel/ztunnel.sock"

const (
	// answerLimit is how long istio-cni waits for a proxy's answer.
	answerLimit = 5 * time.Second
	maxMessage  = 64 << 10
)

// Servers are one server for each node.
type Servers struct {
	nodes map[string]*server
}

// New makes servers for nodes, each in the folder that holds what the node's pods see as its files. They listen until
// ctx ends.
func New(ctx context.Context, folders map[string]string, log *slog.Logger) (*Servers, error) {
	s := &Servers{nodes: map[string]*server{}}
	for node, folder := range folders {
		listener, err := listen(filepath.Join(folder, socketPath))
		if err != nil {
			return nil, fmt.Errorf("listening for the node proxy of %s: %w", node, err)
		}
		of := &server{node: node, log: log.With("node", node), pods: map[string]pod{}, connected: make(chan struct{})}
		s.nodes[node] = of
		context.AfterFunc(ctx, func() { _ = listener.Close() })
		go of.accept(listener)
	}
	return s, nil
}

// listen listens on a socket whose path may be longer than an address can hold (108 bytes): by way of its folder.
func listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path))
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: short, Net: "unixpacket"})
	if err == nil {
		listener.SetUnlinkOnClose(false) // the folder's descriptor is gone by then
	}
	return listener, err
}

// Add has the proxy of a pod's node serve the pod, and returns when it does. It waits for a proxy to connect until ctx
// ends.
func (s *Servers) Add(ctx context.Context, node string, of *corev1.Pod, network *os.File) error {
	server := s.nodes[node]
	if server == nil {
		return fmt.Errorf("there is no node %s", node)
	}
	request := &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Add{Add: &zdsapi.AddWorkload{
		Uid: string(of.UID),
		WorkloadInfo: &zdsapi.WorkloadInfo{
			Name: of.Name, Namespace: of.Namespace, ServiceAccount: of.Spec.ServiceAccountName,
		},
	}}}
	return server.add(ctx, string(of.UID), pod{request, network})
}

// Remove makes the proxy of a node stop serving a pod.
func (s *Servers) Remove(node, uid string) {
	if server := s.nodes[node]; server != nil {
		server.remove(uid)
	}
}

// pod is a pod to be served: how it is named, and its network namespace.
type pod struct {
	request *zdsapi.WorkloadRequest
	network *os.File
}

// server is istio-cni's side on one node. Proxies that connect hear of every pod; the newest one hears of changes, as
// while an old one gives way to a new one.
type server struct {
	node string
	log  *slog.Logger

	mu        sync.Mutex
	pods      map[string]pod
	conn      *net.UnixConn
	connected chan struct{} // closed while there is a proxy
}

func (s *server) accept(listener *net.UnixListener) {
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			return
		}
		go func() {
			if err := s.greet(conn); err != nil {
				s.log.Warn("a node proxy connected and could not be told of its pods", "error", err)
				_ = conn.Close()
			}
		}()
	}
}

// greet tells a new proxy of every pod.
func (s *server) greet(conn *net.UnixConn) error {
	hello := &zdsapi.ZdsHello{}
	if err := receive(conn, hello); err != nil {
		return fmt.Errorf("reading its greeting: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pods {
		var refused *refusal
		if err := exchange(conn, p.request, p.network); errors.As(err, &refused) {
			s.log.Warn("the node proxy does not serve a pod yet", "uid", p.request.GetAdd().GetUid(), "error", err)
		} else if err != nil {
			return err
		}
	}
	sent := &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_SnapshotSent{SnapshotSent: &zdsapi.SnapshotSent{}}}
	if err := exchange(conn, sent, nil); err != nil {
		return err
	}
	s.disconnect()
	s.conn = conn
	close(s.connected)
	s.log.Info("a node proxy is connected", "pods", len(s.pods))
	go s.watch(conn)
	return nil
}

// watch notices that a proxy is gone: between answers it sends nothing, so there is nothing to read but the end. The
// check reads nothing, so that it does not take an answer away.
func (s *server) watch(conn *net.UnixConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// A copy, so that the connection can be closed meanwhile; no program that is started gets it.
		copied, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = unix.Close(copied) }()
			for {
				fds := []unix.PollFd{{Fd: int32(copied), Events: unix.POLLRDHUP}}
				_, err := unix.Poll(fds, -1)
				if errors.Is(err, unix.EINTR) {
					continue
				}
				break
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.conn == conn {
				s.log.Warn("the node proxy is gone")
				s.disconnect()
			}
		}()
	})
}

// disconnect forgets the proxy; the caller holds mu.
func (s *server) disconnect() {
	if s.conn != nil {
		_ = s.conn.CloseRead() // wakes watch
		_ = s.conn.Close()
		s.conn = nil
		s.connected = make(chan struct{})
	}
}

// add tells the proxy of a pod; where there is none, as soon as there is one.
func (s *server) add(ctx context.Context, uid string, p pod) error {
	s.mu.Lock()
	s.pods[uid] = p
	if s.conn != nil {
		defer s.mu.Unlock()
		return s.tell(p.request, p.network)
	}
	connected := s.connected
	s.mu.Unlock()
	limit, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	select {
	case <-connected: // it was told of every pod first
		return nil
	case <-limit.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("no node proxy is connected on node %s", s.node)
	}
}

func (s *server) remove(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.pods[uid]; !known {
		return
	}
	delete(s.pods, uid)
	if s.conn == nil {
		return
	}
	request := &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Del{Del: &zdsapi.DelWorkload{Uid: uid}}}
	if err := s.tell(request, nil); err != nil {
		s.log.Warn("the node proxy could not be told that a pod is gone", "uid", uid, "error", err)
	}
}

// tell sends a request to the proxy. A connection on which that fails is closed: the proxy connects again.
func (s *server) tell(request *zdsapi.WorkloadRequest, network *os.File) error {
	err := exchange(s.conn, request, network)
	var refused *refusal
	if err != nil && !errors.As(err, &refused) {
		s.disconnect()
	}
	return err
}

// refusal is a proxy's answer that it could not do what it was asked.
type refusal struct{ text string }

func (r *refusal) Error() string { return "the node proxy answers: " + r.text }

// exchange sends a request, with a network namespace where it adds a pod, and waits for the answer.
func exchange(conn *net.UnixConn, request *zdsapi.WorkloadRequest, network *os.File) error {
	raw, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	var rights []byte
	if network != nil {
		rights = unix.UnixRights(int(network.Fd()))
	}
	if _, _, err := conn.WriteMsgUnix(raw, rights, nil); err != nil {
		return fmt.Errorf("writing to the node proxy: %w", err)
	}
	response := &zdsapi.WorkloadResponse{}
	if err := receive(conn, response); err != nil {
		return fmt.Errorf("reading the node proxy's answer: %w", err)
	}
	if text := response.GetAck().GetError(); text != "" {
		return &refusal{text}
	}
	return nil
}

func receive(conn *net.UnixConn, message proto.Message) error {
	if err := conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	buffer := make([]byte, maxMessage)
	n, err := conn.Read(buffer)
	if err != nil {
		return err
	}
	return proto.Unmarshal(buffer[:n], message)
}
