//go:build e2e

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"istio.io/istio/pkg/workloadapi"
	"istio.io/istio/pkg/workloadapi/security"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/istiotest"
)

func exactly(s string) *security.StringMatch {
	return &security.StringMatch{MatchType: &security.StringMatch_Exact{Exact: s}}
}

func anyPrincipal() *security.StringMatch {
	return &security.StringMatch{MatchType: &security.StringMatch_Presence{}}
}

func policyOf(name string, action security.Action, scope security.Scope, m *security.Match) *security.Authorization {
	return &security.Authorization{
		Name: name, Namespace: "default", Action: action, Scope: scope,
		Groups: []*security.Group{{Rules: []*security.Rules{{Matches: []*security.Match{m}}}}},
	}
}

const principalA = "cluster.local/ns/default/sa/appa"

func TestPolicies(t *testing.T) {
	l := newLab(t)
	a, b, outside := l.meshed("appa"), l.meshed("appb"), l.bare("outside")
	l.service(b)
	b.serve(appPort, echo)
	l.node("node-a", a)
	l.node("node-b", b)
	passes := func(p *pod, to string) error {
		got, err := p.ask(to, "x")
		if err == nil && got != "x" {
			return fmt.Errorf("got %q", got)
		}
		return err
	}
	refused := func(p *pod, to string) error {
		if _, err := p.ask(to, "x"); !isReset(err) {
			return fmt.Errorf("got %v, want a reset", err)
		}
		return nil
	}
	l.eventually("first connection", func() error { return passes(a, toVIP) })

	t.Run("deny by principal", func(t *testing.T) {
		// A connection from before the policy is ended by it.
		c, err := a.dial(toVIP)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		l.put(policyOf("deny-a", security.Action_DENY, security.Scope_NAMESPACE,
			&security.Match{Principals: []*security.StringMatch{exactly(principalA)}}))
		if _, err := c.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("open connection: %v, want a reset", err)
		}
		if err := refused(a, toVIP); err != nil {
			t.Error(err)
		}
		if err := passes(outside, b.app()); err != nil {
			t.Errorf("outside is not named by the policy: %v", err)
		}
		l.istiod.Delete("default/deny-a")
		l.eventually("after the policy", func() error { return passes(a, toVIP) })
	})
	t.Run("dry run", func(t *testing.T) {
		p := policyOf("deny-dry", security.Action_DENY, security.Scope_NAMESPACE,
			&security.Match{Principals: []*security.StringMatch{exactly(principalA)}})
		p.DryRun = true
		l.put(p, policyOf("marker", security.Action_DENY, security.Scope_NAMESPACE,
			&security.Match{DestinationPorts: []uint32{8099}}))
		b.serve(8099, echo)
		l.eventually("marker", func() error { return refused(a, netip.AddrPortFrom(b.ip, 8099).String()) })
		if err := passes(a, toVIP); err != nil {
			t.Error(err)
		}
		l.istiod.Delete("default/deny-dry", "default/marker")
	})
	t.Run("strict", func(t *testing.T) {
		// What istiod makes of PeerAuthentication STRICT.
		strict := policyOf("istio_converted_static_strict", security.Action_DENY, security.Scope_WORKLOAD_SELECTOR,
			&security.Match{NotPrincipals: []*security.StringMatch{anyPrincipal()}})
		strict.Namespace = "istio-system"
		w := b.workload()
		w.Services = map[string]*workloadapi.PortList{
			"default/appb.default.svc.cluster.local": {
				Ports: []*workloadapi.Port{{ServicePort: svcPort, TargetPort: appPort}},
			},
		}
		l.put(strict)
		open, err := outside.dial(b.app())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(open, "x")
		if _, err := open.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		// Bound to the pod only now: a connection that is open ends with that.
		w.AuthorizationPolicies = []string{"istio-system/istio_converted_static_strict"}
		l.put(w)
		if _, err := open.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("open connection: %v, want a reset", err)
		}
		l.eventually("strict", func() error { return refused(outside, b.app()) })
		if err := passes(a, toVIP); err != nil {
			t.Error(err)
		}
		l.istiod.Delete("istio-system/istio_converted_static_strict")
		l.eventually("after strict", func() error { return passes(outside, b.app()) })
	})
	t.Run("allow others only", func(t *testing.T) {
		l.put(policyOf("allow-c", security.Action_ALLOW, security.Scope_NAMESPACE,
			&security.Match{Principals: []*security.StringMatch{exactly("cluster.local/ns/default/sa/appc")}}))
		l.eventually("allow", func() error { return refused(a, toVIP) })
		l.istiod.Delete("default/allow-c")
		l.eventually("after allow", func() error { return passes(a, toVIP) })
	})
}

// TestHostilePeers attacks a pod's 15008 from a pod outside the mesh.
func TestHostilePeers(t *testing.T) {
	l := newLab(t)
	b, outside := l.meshed("appb"), l.bare("outside")
	l.service(b)
	reached := make(chan struct{}, 100)
	b.serve(appPort, func(*net.TCPConn) { reached <- struct{}{} })
	b.serve(8090, func(*net.TCPConn) { reached <- struct{}{} })
	outside.serve(appPort, func(*net.TCPConn) { reached <- struct{}{} })
	l.node("node-b", b)
	other, err := istiotest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	hour := time.Hour
	now := time.Now()
	good := "spiffe://cluster.local/ns/default/sa/appa"
	certs := map[string]struct {
		ca   *istiotest.CA
		leaf istiotest.Leaf
	}{
		"wrong trust domain": {
			l.istiod.CA,
			istiotest.Leaf{URIs: []string{"spiffe://other.example/ns/default/sa/appa"}},
		},
		"another authority": {other, istiotest.Leaf{URIs: []string{good}}},
		"expired": {
			l.istiod.CA,
			istiotest.Leaf{URIs: []string{good}, NotBefore: now.Add(-2 * hour), NotAfter: now.Add(-hour)},
		},
		"not yet valid": {
			l.istiod.CA,
			istiotest.Leaf{URIs: []string{good}, NotBefore: now.Add(hour), NotAfter: now.Add(2 * hour)},
		},
		"two identities": {l.istiod.CA, istiotest.Leaf{URIs: []string{good, good + "x"}}},
		"no identity":    {l.istiod.CA, istiotest.Leaf{DNS: "appa.default"}},
		"not a workload": {l.istiod.CA, istiotest.Leaf{URIs: []string{"spiffe://cluster.local/appa"}}},
	}
	to := netip.AddrPortFrom(b.ip, 15008).String()
	for name, c := range certs {
		t.Run(name, func(t *testing.T) {
			cert, err := c.ca.Certificate(c.leaf)
			if err != nil {
				t.Fatal(err)
			}
			if err := tunnel(t, outside, to, b.app(),
				&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}); err == nil {
				t.Error("got a tunnel")
			}
		})
	}
	cert, err := l.istiod.CA.Certificate(istiotest.Leaf{URIs: []string{good}})
	if err != nil {
		t.Fatal(err)
	}
	fine := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	t.Run("no certificate", func(t *testing.T) {
		if err := tunnel(t, outside, to, b.app(), &tls.Config{NextProtos: []string{"h2"}}); err == nil {
			t.Error("got a tunnel")
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		c := fine.Clone()
		c.MaxVersion = tls.VersionTLS12
		if err := tunnel(t, outside, to, b.app(), c); err == nil {
			t.Error("got a tunnel")
		}
	})
	t.Run("no HTTP/2", func(t *testing.T) {
		c := fine.Clone()
		c.NextProtos = nil
		if err := tunnel(t, outside, to, b.app(), c); err == nil {
			t.Error("got a tunnel")
		}
	})
	for name, target := range map[string]string{
		"foreign address": outside.app(), "loopback": "127.0.0.1:8080",
		"own outbound port": netip.AddrPortFrom(b.ip, 15001).String(),
		"own HBONE port":    to, "admin port by loopback": "127.0.0.1:15000",
		"unknown host": "unknown.default.svc.cluster.local:80",
		"no port":      b.ip.String(), "port 0": b.ip.String() + ":0", "empty": "", "garbage": "\"\x7f/..:99999",
		"mapped loopback": "[::ffff:127.0.0.1]:8080",
	} {
		t.Run("CONNECT to "+name, func(t *testing.T) {
			err := tunnel(t, outside, to, target, fine)
			var status hbone.StatusError
			var reset http2.StreamError
			if !errors.As(err, &status) && !errors.As(err, &reset) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
	t.Run("garbage bytes", func(t *testing.T) {
		for _, junk := range []string{
			"GET / HTTP/1.1\r\nHost: x\r\n\r\n", string(make([]byte, 4096)),
			"\x16\x03\x01\xff\xff" + string(make([]byte, 4096)),
		} {
			c, err := outside.dial(to)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, junk)
			got, _ := io.ReadAll(c)
			if len(got) > 0 && got[0] != 21 { // a TLS alert is all that may come
				t.Errorf("answered %q with %q", junk[:5], got)
			}
			c.Close()
		}
	})
	select {
	case <-reached:
		t.Fatal("an application was reached")
	default:
	}
	// After all that, a good peer still gets through.
	if err := tunnel(t, outside, to, b.app(), fine); err != nil {
		t.Error(err)
	}
	<-reached
}

// tunnel opens a tunnel to target through the proxy at addr, and returns why not.
func tunnel(t *testing.T, from *pod, addr, target string, conf *tls.Config) error {
	t.Helper()
	c, err := from.dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conf = conf.Clone()
	conf.InsecureSkipVerify = true //nolint:gosec // an attacker does not verify its victim
	tc := tls.Client(c, conf)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return err
	}
	return connectByFrames(tc, target)
}

// connectByFrames sends a CONNECT as it is: a library would refuse to send some of the targets.
func connectByFrames(c net.Conn, target string) error {
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return err
	}
	fr := http2.NewFramer(c, c)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	if err := errors.Join(
		fr.WriteSettings(), enc.WriteField(hpack.HeaderField{Name: ":method", Value: "CONNECT"}),
		enc.WriteField(hpack.HeaderField{Name: ":authority", Value: target}),
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
	); err != nil {
		return err
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			status, err := strconv.Atoi(f.PseudoValue("status"))
			if err == nil && status != 200 {
				err = hbone.StatusError{Status: status}
			}
			return err
		case *http2.RSTStreamFrame:
			return http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode}
		case *http2.GoAwayFrame:
			return fmt.Errorf("connection refused: %s", f.ErrCode)
		}
	}
}
