//go:build e2e

package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"istio.io/istio/pkg/workloadapi"
)

// service is appb's, on vip:svcPort, to appPort of the given pods.
func (l *lab) service(pods ...*pod) *workloadapi.Service {
	for _, p := range pods {
		w := p.workload()
		w.Services = map[string]*workloadapi.PortList{
			"default/appb.default.svc.cluster.local": {
				Ports: []*workloadapi.Port{{ServicePort: svcPort, TargetPort: appPort}},
			},
		}
		l.put(w)
	}
	svc := &workloadapi.Service{
		Name: "appb", Namespace: "default", Hostname: "appb.default.svc.cluster.local",
		Addresses: []*workloadapi.NetworkAddress{{Address: netip.MustParseAddr(vip).AsSlice()}},
		Ports:     []*workloadapi.Port{{ServicePort: svcPort, TargetPort: appPort}},
	}
	l.put(svc)
	return svc
}

const toVIP = "10.96.0.10:8000" // vip and svcPort
func (p *pod) app() string      { return netip.AddrPortFrom(p.ip, appPort).String() }

func TestPodToPod(t *testing.T) {
	l := newLab(t)
	a, b, outside := l.meshed("appa"), l.meshed("appb"), l.bare("outside")
	l.service(b)
	seen := make(chan string, 100)
	b.serve(appPort, func(c *net.TCPConn) {
		seen <- ipOf(c.RemoteAddr())
		echo(c)
	})
	outside.serve(appPort, func(c *net.TCPConn) {
		seen <- ipOf(c.RemoteAddr())
		echo(c)
	})
	l.node("node-a", a)
	l.node("node-b", b)
	wire := l.capture()

	secret := "plain words that must not be seen"
	for _, to := range []string{toVIP, b.app()} {
		got, err := a.ask(to, secret)
		if err != nil || got != secret {
			t.Fatalf("%s: %q, %v", to, got, err)
		}
		if from := <-seen; from != a.ip.String() {
			t.Errorf("%s: application sees its client as %s, want %s", to, from, a.ip)
		}
	}
	packets, tls := wire.stop(secret)
	if packets != 0 {
		t.Errorf("%d packets on the wire carry the plain text", packets)
	}
	if tls == 0 {
		t.Error("no TLS on port 15008 on the wire")
	}
	// To the mesh from outside, and out of the mesh, in plain.
	if got, err := outside.ask(b.app(), "x"); err != nil || got != "x" {
		t.Errorf("from outside: %q, %v", got, err)
	}
	if from := <-seen; from != outside.ip.String() {
		t.Errorf("application sees an outside client as %s, want %s", from, outside.ip)
	}
	if got, err := a.ask(outside.app(), "x"); err != nil || got != "x" {
		t.Errorf("to outside: %q, %v", got, err)
	}
	if from := <-seen; from != a.ip.String() {
		t.Errorf("outside application sees %s, want %s", from, a.ip)
	}
}

// TestManyPlainConnections opens most of the connections that its client has ports for. A connection from the client to
// appb, and one that the proxy makes to the application with the client's address, must never have the same port: the
// kernel would take them for one (https://github.com/istio/istio/issues/38982), and the client would wait in vain.
func TestManyPlainConnections(t *testing.T) {
	l := newLab(t)
	b, outside := l.meshed("appb"), l.bare("outside")
	for _, p := range []*pod{b, outside} {
		l.command("ip", "netns", "exec", p.host, "sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=40000 40199")
	}
	b.serve(appPort, echo)
	l.node("node-b", b)
	for i := range 80 {
		c, err := outside.dial(b.app())
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
}

func ipOf(a net.Addr) string { return a.(*net.TCPAddr).IP.String() }

func TestConnectionsAreCarriedFaithfully(t *testing.T) {
	l := newLab(t)
	a, b := l.meshed("appa"), l.meshed("appb")
	l.service(b)
	results := make(chan error, 10)
	b.serve(appPort, echo)
	// 8081 ends first and reads on; 8082 resets; 8083 waits for a reset; 8084 answers once its client has ended; 8085
	// ends first and does not read.
	b.serve(8081, func(c *net.TCPConn) {
		got := make([]byte, len("sent before"))
		_, err := io.ReadFull(c, got)
		if err == nil && string(got) != "sent before" {
			err = fmt.Errorf("server read %q", got)
		}
		_, _ = io.WriteString(c, "bye")
		_ = c.CloseWrite()
		_, end := io.ReadAll(c)
		results <- errors.Join(err, end)
	})
	b.serve(8082, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})
	b.serve(8083, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "x")
		_, err := io.ReadAll(c)
		results <- err
	})
	b.serve(8084, func(c *net.TCPConn) {
		got, err := io.ReadAll(c)
		if err == nil {
			_, err = fmt.Fprintf(c, "%d bytes", len(got))
		}
		results <- err
	})
	full := make(chan struct{})
	b.serve(8085, func(c *net.TCPConn) {
		<-full
		_, _ = io.WriteString(c, "bye")
		_ = c.CloseWrite()
		<-t.Context().Done()
	})
	l.node("node-a", a)
	l.node("node-b", b)

	t.Run("client ends first", func(t *testing.T) {
		got, err := a.ask(netip.AddrPortFrom(b.ip, 8084).String(), "question")
		if got != "8 bytes" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if err := <-results; err != nil {
			t.Error(err)
		}
	})
	t.Run("every byte", func(t *testing.T) {
		c, err := a.dial(toVIP)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, 20<<20)
		_, _ = rand.Read(want)
		go func() {
			_, _ = c.Write(want)
			_ = c.CloseWrite()
		}()
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
		}
	})
	t.Run("server ends first", func(t *testing.T) {
		c, err := a.dial(netip.AddrPortFrom(b.ip, 8081).String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "sent before")
		if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		if err := <-results; err != nil {
			t.Error(err)
		}
		// An application that ends its half ends the connection, as if it had closed it: the client may not write on.
		l.eventually("the end of the connection", func() error {
			if _, err := io.WriteString(c, "lost"); err == nil {
				return errors.New("the client may still write")
			}
			return nil
		})
	})
	t.Run("server ends first and does not read", func(t *testing.T) {
		c, err := a.dial(netip.AddrPortFrom(b.ip, 8085).String())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Write(make([]byte, 256<<20)); err == nil {
			t.Fatalf("%d bytes were accepted without a reader", n)
		}
		close(full)
		if got, err := io.ReadAll(c); string(got) != "bye" || err != nil && !isReset(err) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("server resets", func(t *testing.T) {
		c, err := a.dial(netip.AddrPortFrom(b.ip, 8082).String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "xx")
		if _, err := io.ReadAll(c); !isReset(err) {
			t.Errorf("client saw %v, want a reset", err)
		}
	})
	t.Run("client resets", func(t *testing.T) {
		c, err := a.dial(netip.AddrPortFrom(b.ip, 8083).String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetLinger(0)
		_ = c.Close()
		if err := <-results; !isReset(err) {
			t.Errorf("server saw %v, want a reset", err)
		}
	})
	t.Run("no listener", func(t *testing.T) {
		_, err := a.ask(netip.AddrPortFrom(b.ip, 9).String(), "x")
		if !isReset(err) && (err == nil || !strings.Contains(err.Error(), "broken pipe")) {
			t.Errorf("got %v, want a reset", err)
		}
	})
	t.Run("own ports", func(t *testing.T) {
		for _, port := range []uint16{15001, 15006} {
			if _, err := a.ask(netip.AddrPortFrom(b.ip, port).String(), "x"); err == nil {
				t.Errorf("port %d of the proxy was reached", port)
			}
		}
	})
	t.Run("to itself by its service", func(t *testing.T) {
		if got, err := b.ask(toVIP, "x"); err != nil || got != "x" {
			t.Errorf("%q, %v", got, err)
		}
	})
}
