package outbound

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/identity"
)

// peer is an HBONE server that answers every tunnel by echo, and whose connections can be cut.
type peer struct {
	dials atomic.Int64
	fail  atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func (p *peer) dial(context.Context) (*hbone.Conn, error) {
	p.dials.Add(1)
	if p.fail.Load() {
		return nil, errors.New("the test refuses")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	far, err := l.Accept()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.conns = append(p.conns, far)
	p.mu.Unlock()
	server, err := hbone.NewServer(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	go server.Serve(context.Background(), far, func(r *hbone.Request) {
		if s, err := r.Accept(); err == nil {
			_, _ = io.Copy(s, s)
			_ = s.CloseWrite()
		}
	})
	return hbone.Client(near)
}

func (p *peer) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

func id(account string) identity.Identity {
	return identity.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: account}
}

func TestPool(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	to := netip.MustParseAddrPort("10.0.0.2:15008")
	key := newKey(id("appa"), to, []identity.Identity{id("appb")})
	open := func(t *testing.T, p *pool, k poolKey, peer *peer) *hbone.ClientStream {
		t.Helper()
		s, err := p.connect(ctx, k, peer.dial, "10.0.0.2:80", nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}

	t.Run("a burst shares one connection", func(t *testing.T) {
		p, peer := newPool(), &peer{}
		defer p.close()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { open(t, p, key, peer) })
		}
		wg.Wait()
		if n := peer.dials.Load(); n != 1 {
			t.Errorf("%d connections for 50 streams", n)
		}
	})
	t.Run("a full connection gets a second one", func(t *testing.T) {
		p, peer := newPool(), &peer{}
		defer p.close()
		for range 150 {
			open(t, p, key, peer)
		}
		if n := peer.dials.Load(); n != 2 {
			t.Errorf("%d connections for 150 streams", n)
		}
	})
	t.Run("nothing is shared between identities", func(t *testing.T) {
		p, peer := newPool(), &peer{}
		defer p.close()
		for _, k := range []poolKey{
			key,
			newKey(id("other"), to, []identity.Identity{id("appb")}),
			newKey(id("appa"), to, []identity.Identity{id("other")}),
			newKey(id("appa"), to, []identity.Identity{id("appb"), id("other")}),
			newKey(id("appa"), netip.MustParseAddrPort("10.0.0.3:15008"), []identity.Identity{id("appb")}),
		} {
			open(t, p, k, peer)
		}
		if n := peer.dials.Load(); n != 5 {
			t.Errorf("%d connections for 5 different keys", n)
		}
	})
	t.Run("a dead connection is replaced", func(t *testing.T) {
		p, peer := newPool(), &peer{}
		defer p.close()
		s := open(t, p, key, peer)
		peer.cut()
		if _, err := io.ReadAll(s); err == nil {
			t.Error("a cut stream ended well")
		}
		open(t, p, key, peer)
		if n := peer.dials.Load(); n != 2 {
			t.Errorf("%d dials", n)
		}
	})
	t.Run("a failure is returned, and not kept", func(t *testing.T) {
		p, peer := newPool(), &peer{}
		defer p.close()
		peer.fail.Store(true)
		if _, err := p.connect(ctx, key, peer.dial, "x:1", nil); err == nil {
			t.Fatal("connected")
		}
		peer.fail.Store(false)
		open(t, p, key, peer)
	})
	t.Run("closed", func(t *testing.T) {
		p, peer := newPool(), &peer{}
		s := open(t, p, key, peer)
		p.close()
		if _, err := p.connect(ctx, key, peer.dial, "x:1", nil); !errors.Is(err, errPoolClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := io.ReadAll(s); err == nil {
			t.Error("a stream of a closed connection ended without an error")
		}
	})
	t.Run("connections that have ended are forgotten", func(t *testing.T) {
		p, peer := newPool(), &peer{}
		defer p.close()
		open(t, p, key, peer)
		peer.cut()
		for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
			p.mu.Lock()
			n := len(p.slots)
			p.mu.Unlock()
			if n == 0 {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%d slots", n)
			}
		}
	})
}
