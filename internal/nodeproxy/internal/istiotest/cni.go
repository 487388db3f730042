package istiotest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/zdsapi"
)

// CNI simulates istio-cni's server, to which node proxies connect. It sends the pods to the newest proxy.
type CNI struct {
	path string
	l    *net.UnixListener

	mu   sync.Mutex
	pods map[string]cniPod
	conn *net.UnixConn
	// synced is closed when the newest connection has acknowledged a snapshot.
	synced  chan struct{}
	stopped bool
}

type cniPod struct {
	req   *zdsapi.WorkloadRequest
	netns *os.File
}

// NewCNI returns a server for the socket at path, which does not listen yet.
func NewCNI(path string) *CNI {
	return &CNI{path: path, pods: map[string]cniPod{}, synced: make(chan struct{})}
}

// Start listens.
func (c *CNI) Start() error {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: c.path, Net: "unixpacket"})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.l, c.stopped = l, false
	c.mu.Unlock()
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if err := c.greet(conn); err != nil {
				_ = conn.Close()
			}
		}
	}()
	return nil
}

// Stop closes the connection, as if istio-cni had been killed.
func (c *CNI) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.l.Close()
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
	c.synced = make(chan struct{})
}

// greet sends all pods to a newly connected proxy.
func (c *CNI) greet(conn *net.UnixConn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var hello zdsapi.ZdsHello
	if err := read(conn, &hello); err != nil {
		return err
	}
	if hello.GetVersion() != zdsapi.Version_V1 {
		return fmt.Errorf("hello of version %s", hello.GetVersion())
	}
	for _, p := range c.pods {
		// Like istio-cni, it goes on with the snapshot after a refusal.
		if err := exchange(conn, p.req, p.netns); err != nil && !errors.As(err, new(ackError)) {
			return err
		}
	}
	if err := exchange(conn,
		&zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_SnapshotSent{SnapshotSent: &zdsapi.SnapshotSent{}}},
		nil); err != nil {
		return err
	}
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn = conn
	select {
	case <-c.synced:
	default:
		close(c.synced)
	}
	return nil
}

// Synced waits until a proxy has acknowledged a snapshot since the last Stop.
func (c *CNI) Synced(ctx context.Context) error {
	c.mu.Lock()
	ch := c.synced
	c.mu.Unlock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Forget makes Synced wait for the next connection.
func (c *CNI) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.synced = make(chan struct{})
}

// Add sends a pod and returns the proxy's answer.
func (c *CNI) Add(uid, name, namespace, account string, netns *os.File) error {
	req := &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Add{Add: &zdsapi.AddWorkload{
		Uid: uid, WorkloadInfo: &zdsapi.WorkloadInfo{Name: name, Namespace: namespace, ServiceAccount: account},
	}}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pods[uid] = cniPod{req, netns}
	if c.conn == nil {
		return nil
	}
	return exchange(c.conn, req, netns)
}

// Delete sends that a pod was deleted.
func (c *CNI) Delete(uid string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, uid)
	if c.conn == nil {
		return nil
	}
	return exchange(c.conn,
		&zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Del{Del: &zdsapi.DelWorkload{Uid: uid}}}, nil)
}

type ackError string

func (e ackError) Error() string { return string(e) }

func exchange(conn *net.UnixConn, req *zdsapi.WorkloadRequest, netns *os.File) error {
	b, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	var rights []byte
	if netns != nil {
		rights = unix.UnixRights(int(netns.Fd()))
	}
	if _, _, err := conn.WriteMsgUnix(b, rights, nil); err != nil {
		return err
	}
	var resp zdsapi.WorkloadResponse
	if err := read(conn, &resp); err != nil {
		return err
	}
	if e := resp.GetAck().GetError(); e != "" {
		return ackError(e)
	}
	return nil
}

// read receives one message within istio-cni's timeout.
func read(conn *net.UnixConn, m proto.Message) error {
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	return proto.Unmarshal(buf[:n], m)
}
