package xds

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/workloadapi"
	"istio.io/istio/pkg/workloadapi/security"

	"ambientlab/nodeproxy/internal/istiotest"
	"ambientlab/nodeproxy/internal/policy"
	"ambientlab/nodeproxy/internal/workload"
)

func pod(i byte) *workloadapi.Workload {
	return &workloadapi.Workload{
		Uid: fmt.Sprintf("Kubernetes//Pod/default/p%d", i), Name: fmt.Sprintf("p%d", i), Namespace: "default",
		Addresses: [][]byte{{10, 0, 0, i}},
	}
}

func TestClient(t *testing.T) {
	istiod, err := istiotest.NewIstiod()
	if err != nil {
		t.Fatal(err)
	}
	if err := istiod.Start(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { istiod.Stop() })
	dir := t.TempDir()
	root, token := filepath.Join(dir, "root"), filepath.Join(dir, "token")
	write(t, root, istiod.CA.PEM())
	write(t, token, []byte("not the right one"))
	conn, err := Dial(istiod.Addr, "", root, token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	log := slog.New(slog.DiscardHandler)
	ws, ps := workload.NewStore(), policy.NewStore(log)
	c := New(conn, Node("10.0.0.1", "ztunnel-x", "istio-system", "node", map[string]string{"CLUSTER_ID": "Kubernetes"}),
		ws, ps, log, nil)
	if err := istiod.Put(pod(1), pod(2), &workloadapi.Service{Name: "s", Namespace: "default", Hostname: "s.default"},
		&security.Authorization{Name: "p", Namespace: "default", Scope: security.Scope_NAMESPACE}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	// The kubelet writes the right token later: the client must read the file again.
	write(t, token, []byte(istiotest.Token+"\n"))
	select {
	case <-c.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("never ready")
	}
	has := func(i byte) bool { return ws.ByAddress("", netip.AddrFrom4([4]byte{10, 0, 0, i})) != nil }
	if !has(1) || !has(2) || ws.Service("default", "s.default") == nil || len(ps.All()) != 1 {
		t.Fatal("ready before everything has arrived")
	}
	until(t, "a push", func() bool { return istiod.Put(pod(3)) == nil && has(3) })
	istiod.Delete("Kubernetes//Pod/default/p1")
	until(t, "a removal", func() bool { return !has(1) })

	// An invalid resource is refused by name; the others of the same response are accepted.
	bad := pod(9)
	bad.Addresses = [][]byte{{1, 2, 3}}
	if err := istiod.Put(bad, pod(4)); err != nil {
		t.Fatal(err)
	}
	until(t, "a partial refusal", func() bool {
		n := istiod.Nacks()
		return has(4) && len(n) == 1 && strings.Contains(n[0], "p9")
	})

	// When the stream is lost, the stores keep their content. The next stream deletes what was removed meanwhile, and
	// sends what was refused again.
	addr := strings.Replace(istiod.Addr, "localhost", "127.0.0.1", 1)
	istiod.Stop()
	istiod.Delete("Kubernetes//Pod/default/p2")
	if !has(2) {
		t.Error("the stores lost their content with the stream")
	}
	if err := istiod.Put(pod(9)); err != nil {
		t.Fatal(err)
	}
	if err := istiod.Start(addr); err != nil {
		t.Fatal(err)
	}
	until(t, "resumption", func() bool { return !has(2) && has(3) && has(4) && istiod.Resumed() == 2 })
	until(t, "the refused one", func() bool { return ws.ByUID("Kubernetes//Pod/default/p9") != nil })
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	end := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// TestServerName: istiod may be reached by an address that is not in its certificate.
func TestServerName(t *testing.T) {
	istiod, err := istiotest.NewIstiod()
	if err != nil {
		t.Fatal(err)
	}
	if err := istiod.Start("127.0.0.2:0"); err != nil { // the certificate is for localhost and 127.0.0.1
		t.Fatal(err)
	}
	t.Cleanup(func() { istiod.Stop() })
	addr := strings.Replace(istiod.Addr, "localhost", "127.0.0.2", 1)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "root"), istiod.CA.PEM())
	write(t, filepath.Join(dir, "token"), []byte(istiotest.Token))
	for name, good := range map[string]bool{"localhost": true, "": false, "istiod.example": false} {
		conn, err := Dial(addr, name, filepath.Join(dir, "root"), filepath.Join(dir, "token"))
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		c := New(conn, Node("", "", "", "", nil), workload.NewStore(), policy.NewStore(log), log, nil)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		ended := make(chan error, 1)
		go func() { ended <- c.stream(ctx) }()
		select {
		case <-c.Ready():
			if !good {
				t.Errorf("name %q: connected", name)
			}
		case err := <-ended:
			if good || !strings.Contains(err.Error(), "certificate") {
				t.Errorf("name %q: %v", name, err)
			}
		}
		cancel()
		conn.Close()
	}
}

func TestWrongServerIsRefused(t *testing.T) {
	istiod, err := istiotest.NewIstiod()
	if err != nil {
		t.Fatal(err)
	}
	if err := istiod.Start(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { istiod.Stop() })
	other, err := istiotest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "root"), other.PEM())
	write(t, filepath.Join(dir, "token"), []byte(istiotest.Token))
	conn, err := Dial(istiod.Addr, "", filepath.Join(dir, "root"), filepath.Join(dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	log := slog.New(slog.DiscardHandler)
	c := New(conn, Node("", "", "", "", nil), workload.NewStore(), policy.NewStore(log), log, nil)
	if err := c.stream(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func FuzzAddress(f *testing.F) {
	for _, m := range []proto.Message{
		&workloadapi.Address{Type: &workloadapi.Address_Workload{Workload: pod(1)}},
		&workloadapi.Address{Type: &workloadapi.Address_Service{Service: &workloadapi.Service{
			Hostname: "h", Addresses: []*workloadapi.NetworkAddress{{Address: []byte{1, 2, 3, 4}}},
			Ports: []*workloadapi.Port{{ServicePort: 80}},
		}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		w, svc, err := parseAddress(in)
		if err != nil {
			return
		}
		// What is accepted must be usable: added, routed to, and removed.
		s := workload.NewStore()
		if w != nil {
			s.Update([]*workload.Workload{w}, nil, nil)
			for _, a := range w.Addresses {
				_, _ = s.Route(w, netip.AddrPortFrom(a, 80))
			}
			s.Update(nil, nil, []string{w.UID})
		}
		if svc != nil {
			s.Update(nil, []*workload.Service{svc}, nil)
			for _, v := range svc.VIPs {
				_, _ = s.Route(&workload.Workload{Network: v.Network}, netip.AddrPortFrom(v.Address, 80))
			}
			s.Update(nil, nil, []string{svc.Key()})
		}
		if ws, svcs := s.All(); len(ws)+len(svcs) > 0 {
			t.Error("something stayed after removal")
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	b, err := proto.Marshal(
		&security.Authorization{
			Name: "n",
			Groups: []*security.Group{{Rules: []*security.Rules{{Matches: []*security.Match{{
				SourceIps:        []*security.Address{{Address: []byte{10, 0, 0, 0}, Length: 8}},
				DestinationPorts: []uint32{80},
			}}}}}},
		})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(_ *testing.T, in []byte) {
		if p, err := parseAuthorization(in); err == nil {
			s := policy.NewStore(slog.New(slog.DiscardHandler))
			s.Update([]*policy.Policy{p}, nil)
			_ = s.Check("default", []string{p.Key()}, policy.Connection{})
		}
	})
}
