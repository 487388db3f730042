package zds

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/zdsapi"
)

// pods records the calls. Pods named "bad" cannot be served until repaired is closed.
type pods struct {
	active, failed map[string]bool
	repaired       chan struct{}
}

func newPods() *pods {
	return &pods{active: map[string]bool{}, failed: map[string]bool{}, repaired: make(chan struct{})}
}

func (p *pods) Add(pod Pod, f *os.File) error {
	_ = f.Close()
	if pod.Name == "bad" {
		p.failed[pod.UID] = true
		return errors.New("the test refuses")
	}
	p.active[pod.UID] = true
	return nil
}

func (p *pods) Delete(uid string) {
	delete(p.active, uid)
	delete(p.failed, uid)
}

func (p *pods) Keep(uids map[string]bool) {
	maps.DeleteFunc(p.active, func(uid string, _ bool) bool { return !uids[uid] })
	maps.DeleteFunc(p.failed, func(uid string, _ bool) bool { return !uids[uid] })
}

func (p *pods) Retry() {
	select {
	case <-p.repaired:
		maps.Copy(p.active, p.failed)
		clear(p.failed)
	default:
	}
}

func (p *pods) Waiting() bool { return len(p.failed) > 0 }

func (p *pods) list() []string { return slices.Sorted(maps.Keys(p.active)) }

func keep(uid string) *zdsapi.WorkloadRequest {
	return &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Keep{Keep: &zdsapi.KeepWorkload{Uid: uid}}}
}

func del(uid string) *zdsapi.WorkloadRequest {
	return &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Del{Del: &zdsapi.DelWorkload{Uid: uid}}}
}

func snapshot() *zdsapi.WorkloadRequest {
	return &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_SnapshotSent{SnapshotSent: &zdsapi.SnapshotSent{}}}
}

func named(uid, name string) *zdsapi.WorkloadRequest {
	return add(uid, &zdsapi.WorkloadInfo{Name: name, Namespace: "default", ServiceAccount: "sa"})
}

// cni is one connection of a client, seen from istio-cni.
type cni struct {
	t    *testing.T
	conn *net.UnixConn
}

// say sends a request, with a descriptor if it adds a pod, and returns the error in the answer.
func (c *cni) say(r *zdsapi.WorkloadRequest) string {
	c.t.Helper()
	var rights []byte
	if r.GetAdd() != nil {
		f, err := os.Open("/dev/null")
		if err != nil {
			c.t.Fatal(err)
		}
		defer f.Close()
		rights = unix.UnixRights(int(f.Fd()))
	}
	return c.raw(encoded(c.t, r), rights)
}

func (c *cni) raw(b, rights []byte) string {
	c.t.Helper()
	if _, _, err := c.conn.WriteMsgUnix(b, rights, nil); err != nil {
		c.t.Fatal(err)
	}
	var resp zdsapi.WorkloadResponse
	c.read(&resp)
	return resp.GetAck().GetError()
}

func (c *cni) read(m proto.Message) {
	c.t.Helper()
	buf := make([]byte, maxMessage)
	n, err := c.conn.Read(buf)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := proto.Unmarshal(buf[:n], m); err != nil {
		c.t.Fatal(err)
	}
}

func TestSessions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cni.sock")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newPods()
	ready := make(chan bool, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		New(path, p, slog.New(slog.DiscardHandler), func(ok bool) { ready <- ok }).Run(ctx)
	}()
	accept := func() *cni {
		t.Helper()
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		c := &cni{t, conn}
		var hello zdsapi.ZdsHello
		if c.read(&hello); hello.GetVersion() != zdsapi.Version_V1 {
			t.Errorf("hello of version %s", hello.GetVersion())
		}
		return c
	}
	last := func() bool {
		ok := <-ready
		for len(ready) > 0 {
			ok = <-ready
		}
		return ok
	}
	want := func(when string, uids ...string) {
		t.Helper()
		if got := p.list(); !slices.Equal(got, uids) {
			t.Errorf("%s: serves %v, want %v", when, got, uids)
		}
	}

	c := accept()
	for _, r := range []*zdsapi.WorkloadRequest{named("a", "a"), named("b", "b"), del("b"), named("c", "c")} {
		if e := c.say(r); e != "" {
			t.Error(e)
		}
	}
	if last() {
		t.Error("ready before the snapshot")
	}
	if e := c.say(snapshot()); e != "" {
		t.Error(e)
	}
	if !last() {
		t.Error("not ready after the snapshot")
	}
	want("first snapshot", "a", "c")
	if e := c.say(named("x", "bad")); e == "" {
		t.Error("a pod that is not served was acknowledged")
	}
	if last() {
		t.Error("ready although a pod is not served")
	}
	close(p.repaired)
	if !last() {
		t.Error("not ready after the retry")
	}
	want("after the retry", "a", "c", "x")

	// istio-cni comes back without c, and with a that it cannot find the namespace of.
	c.conn.Close()
	c = accept()
	if last() {
		t.Error("ready without istio-cni")
	}
	for _, r := range []*zdsapi.WorkloadRequest{keep("a"), named("d", "d"), snapshot()} {
		if e := c.say(r); e != "" {
			t.Error(e)
		}
	}
	want("second snapshot", "a", "d")

	// An invalid message is answered, and the client connects again; pods are still served.
	for name, say := range map[string]func(*cni) string{
		"keep after the snapshot": func(c *cni) string { return c.say(keep("a")) },
		"second snapshot":         func(c *cni) string { return c.say(snapshot()) },
		"garbage":                 func(c *cni) string { return c.raw([]byte{0xff, 0xff}, nil) },
		"pod without a namespace": func(c *cni) string { return c.raw(encoded(t, named("e", "e")), nil) },
	} {
		if e := say(c); e == "" {
			t.Errorf("%s was acknowledged", name)
		}
		if _, err := c.conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: connection goes on", name)
		}
		want(name, "a", "d")
		c.conn.Close()
		c = accept()
		for _, r := range []*zdsapi.WorkloadRequest{keep("a"), keep("d"), snapshot()} {
			if e := c.say(r); e != "" {
				t.Error(e)
			}
		}
	}
	cancel()
	<-ended
}
