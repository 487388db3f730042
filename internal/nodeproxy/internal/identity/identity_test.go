package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/istiotest"
)

func TestParse(t *testing.T) {
	want := identity.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "appa"}
	const good = "spiffe://cluster.local/ns/default/sa/appa"
	if id, err := identity.Parse(good); err != nil || id != want || id.String() != good {
		t.Errorf("%v, %v", id, err)
	}
	for _, bad := range []string{
		"", "cluster.local/ns/default/sa/appa", "https://cluster.local/ns/default/sa/appa",
		"spiffe://cluster.local/ns/default/sa/",
		"spiffe:///ns/default/sa/appa", "spiffe://cluster.local/ns//sa/appa",
		"spiffe://cluster.local/sa/default/ns/appa",
		good + "/more", "spiffe://cluster.local/ns/default",
	} {
		if id, err := identity.Parse(bad); err == nil {
			t.Errorf("%q was taken for %v", bad, id)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://cluster.local/ns/default/sa/appa")
	f.Fuzz(func(t *testing.T, in string) {
		if id, err := identity.Parse(in); err == nil && id.String() != in {
			t.Errorf("%q comes back as %q", in, id)
		}
	})
}

func FuzzFromCertificate(f *testing.F) {
	ca, err := istiotest.NewCA()
	if err != nil {
		f.Fatal(err)
	}
	c, err := ca.Certificate(istiotest.Leaf{URIs: []string{"spiffe://cluster.local/ns/default/sa/appa"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Certificate[0])
	f.Fuzz(func(_ *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if _, err := identity.FromCertificate(cert); err == nil {
			_, _ = identity.VerifyPeer([]*x509.Certificate{cert}, x509.NewCertPool(), time.Now(), x509.ExtKeyUsageAny)
		}
	})
}

// signer signs certificates, or fails if a test says so.
type signer struct {
	ca    *istiotest.CA
	life  time.Duration
	calls atomic.Int64
	fail  atomic.Bool
}

func (s *signer) Sign(_ context.Context, id identity.Identity) (*identity.Certificate, error) {
	s.calls.Add(1)
	if s.fail.Load() {
		return nil, errors.New("the test refuses")
	}
	c, err := s.ca.Certificate(
		istiotest.Leaf{URIs: []string{id.String()}, NotBefore: time.Now(), NotAfter: time.Now().Add(s.life)})
	if err != nil {
		return nil, err
	}
	if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.Root)
	return &identity.Certificate{Identity: id, TLS: c, Roots: roots}, nil
}

func newSigner(t *testing.T, life time.Duration) *signer {
	t.Helper()
	ca, err := istiotest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return &signer{ca: ca, life: life}
}

var appa = identity.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "appa"}

func TestStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	log := slog.New(slog.DiscardHandler)

	t.Run("shared and released", func(t *testing.T) {
		sign := newSigner(t, time.Hour)
		s := identity.NewStore(sign, log, time.Now)
		if _, err := s.Get(ctx, appa); err == nil {
			t.Error("got a certificate that was not acquired")
		}
		one, two := s.Acquire(appa), s.Acquire(appa)
		first, err := s.Get(ctx, appa)
		if err != nil {
			t.Fatal(err)
		}
		one()
		one() // calling twice must not take the other's
		if again, err := s.Get(ctx, appa); err != nil || again != first {
			t.Errorf("%v, %v", again, err)
		}
		two()
		if _, err := s.Get(ctx, appa); err == nil || len(s.States()) > 0 {
			t.Error("held beyond its last user")
		}
		if n := sign.calls.Load(); n != 1 {
			t.Errorf("signed %d times", n)
		}
	})
	t.Run("renewed, and kept while renewal fails", func(t *testing.T) {
		sign := newSigner(t, 3*time.Second)
		s := identity.NewStore(sign, log, time.Now)
		defer s.Acquire(appa)()
		first, err := s.Get(ctx, appa)
		if err != nil {
			t.Fatal(err)
		}
		sign.fail.Store(true)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for sign.calls.Load() < 3 {
			<-tick.C
		}
		if c, err := s.Get(ctx, appa); err != nil || c != first {
			t.Errorf("while the CA is away: %v, %v", c, err)
		}
		sign.fail.Store(false)
		for {
			<-tick.C
			if c, err := s.Get(ctx, appa); err == nil && c != first {
				break
			}
			if ctx.Err() != nil {
				t.Fatal("never renewed")
			}
		}
	})
	t.Run("expired", func(t *testing.T) {
		sign := newSigner(t, time.Hour)
		var ahead atomic.Int64
		s := identity.NewStore(sign, log, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
		defer s.Acquire(appa)()
		if _, err := s.Get(ctx, appa); err != nil {
			t.Fatal(err)
		}
		ahead.Store(int64(2 * time.Hour))
		if _, err := s.Get(ctx, appa); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("why there is none", func(t *testing.T) {
		sign := newSigner(t, time.Hour)
		sign.fail.Store(true)
		s := identity.NewStore(sign, log, time.Now)
		defer s.Acquire(appa)()
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		if _, err := s.Get(short, appa); err == nil || !strings.Contains(err.Error(), "the test refuses") {
			t.Errorf("got %v", err)
		}
	})
}

// TestClientVerifiesItsPeer holds the client's half of mutual TLS; the server's is attacked end to end.
func TestClientVerifiesItsPeer(t *testing.T) {
	sign := newSigner(t, time.Hour)
	mine, err := sign.Sign(t.Context(), appa)
	if err != nil {
		t.Fatal(err)
	}
	other, err := istiotest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	const b = "spiffe://cluster.local/ns/default/sa/appb"
	want, err := identity.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, c := range map[string]struct {
		ca   *istiotest.CA
		leaf istiotest.Leaf
		alpn string
		good bool
	}{
		"the right one":     {sign.ca, istiotest.Leaf{URIs: []string{b}}, "h2", true},
		"another identity":  {sign.ca, istiotest.Leaf{URIs: []string{b + "x"}}, "h2", false},
		"other domain":      {sign.ca, istiotest.Leaf{URIs: []string{"spiffe://x/ns/default/sa/appb"}}, "h2", false},
		"another authority": {other, istiotest.Leaf{URIs: []string{b}}, "h2", false},
		"expired": {
			sign.ca,
			istiotest.Leaf{URIs: []string{b}, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)},
			"h2",
			false,
		},
		"two identities": {sign.ca, istiotest.Leaf{URIs: []string{b, b}}, "h2", false},
		"no HTTP/2":      {sign.ca, istiotest.Leaf{URIs: []string{b}}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			cert, err := c.ca.Certificate(c.leaf)
			if err != nil {
				t.Fatal(err)
			}
			conf := &tls.Config{Certificates: []tls.Certificate{cert}}
			if c.alpn != "" {
				conf.NextProtos = []string{c.alpn}
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if far, err := l.Accept(); err == nil {
					_ = far.(*tls.Conn).Handshake()
				}
			}()
			near, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer near.Close()
			id, err := identity.Handshake(t.Context(),
				tls.Client(near, identity.ClientConfig(mine, []identity.Identity{want}, time.Now)))
			if (err == nil) != c.good {
				t.Fatalf("got %v", err)
			}
			if c.good && id != want {
				t.Errorf("peer is %v", id)
			}
		})
	}
}
