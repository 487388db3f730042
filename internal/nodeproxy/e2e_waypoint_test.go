//go:build e2e

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"istio.io/istio/pkg/workloadapi"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/istiotest"
)

// waypoint ends tunnels on a pod and answers each with what it has seen of it.
func (l *lab) waypoint(p *pod, account string) {
	l.t.Helper()
	cert, err := l.istiod.CA.Certificate(
		istiotest.Leaf{URIs: []string{"spiffe://cluster.local/ns/default/sa/" + account}})
	if err != nil {
		l.t.Fatal(err)
	}
	server, err := hbone.NewServer(slog.New(slog.DiscardHandler))
	if err != nil {
		l.t.Fatal(err)
	}
	ln := p.listen(15008)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				tc := tls.Server(c, &tls.Config{
					MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"},
					ClientAuth: tls.RequireAnyClientCert,
				})
				if err := tc.HandshakeContext(l.t.Context()); err != nil {
					return
				}
				peer, err := identity.FromCertificate(tc.ConnectionState().PeerCertificates[0])
				if err != nil {
					return
				}
				server.Serve(l.t.Context(), tc, func(r *hbone.Request) {
					s, err := r.Accept()
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, s)
					_, _ = fmt.Fprintf(s, "%s|%s|%s|%s", peer, r.Authority, r.Header("baggage"), r.Header("forwarded"))
					_ = s.CloseWrite()
				})
			}()
		}
	}()
}

func TestWaypoint(t *testing.T) {
	l := newLab(t)
	a, b, w := l.meshed("appa"), l.meshed("appb"), l.bare("waypoint")
	svc := l.service(b)
	b.serve(appPort, echo)
	l.waypoint(w, "appb-waypoint")
	l.node("node-a", a)
	l.node("node-b", b)
	l.eventually("without a waypoint", func() error {
		_, err := a.ask(toVIP, "x")
		return err
	})

	// The waypoint's own service, by whose hostname the other names it, and its pod.
	gateway := &workloadapi.Service{
		Name: "appb-waypoint", Namespace: "default", Hostname: "appb-waypoint.default.svc.cluster.local",
		Addresses: []*workloadapi.NetworkAddress{{Address: netip.MustParseAddr("10.96.0.20").AsSlice()}},
		Ports:     []*workloadapi.Port{{ServicePort: 15008, TargetPort: 15008}},
	}
	record := func(account string) *workloadapi.Workload {
		r := w.workload()
		r.ServiceAccount = account
		r.Services = map[string]*workloadapi.PortList{
			"default/appb-waypoint.default.svc.cluster.local": {
				Ports: []*workloadapi.Port{{ServicePort: 15008, TargetPort: 15008}},
			},
		}
		return r
	}
	byName := &workloadapi.GatewayAddress{
		Destination: &workloadapi.GatewayAddress_Hostname{
			Hostname: &workloadapi.NamespacedHostname{Namespace: "default", Hostname: gateway.GetHostname()},
		},
		HboneMtlsPort: 15008,
	}
	byAddress := &workloadapi.GatewayAddress{
		Destination:   &workloadapi.GatewayAddress_Address{Address: gateway.GetAddresses()[0]},
		HboneMtlsPort: 15008,
	}
	l.put(gateway, record("appb-waypoint"))
	for how, g := range map[string]*workloadapi.GatewayAddress{"hostname": byName, "address": byAddress} {
		t.Run("by "+how, func(t *testing.T) {
			svc.Waypoint = g
			l.put(svc)
			var got string
			l.eventually("waypoint", func() (err error) {
				got, err = a.ask(toVIP, "x")
				if err == nil && got == "x" {
					err = fmt.Errorf("went past the waypoint")
				}
				return err
			})
			parts := strings.Split(got, "|")
			if parts[0] != "spiffe://"+principalA {
				t.Errorf("waypoint sees %q", parts[0])
			}
			if parts[1] != toVIP {
				t.Errorf("authority is %q, want the address that the client used, %s", parts[1], toVIP)
			}
			want := "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=appa," +
				"service.name=appa,service.version=v1"
			if parts[2] != want {
				t.Errorf("baggage is %q, want %q", parts[2], want)
			}
			if !strings.HasPrefix(parts[3], `for="`+a.ip.String()+":") ||
				!strings.HasSuffix(parts[3], ";host="+svc.GetHostname()) {
				t.Errorf("forwarded is %q", parts[3])
			}
			svc.Waypoint = nil
			l.put(svc)
			l.eventually("waypoint gone", func() error {
				if got, err := a.ask(toVIP, "x"); got != "x" {
					return fmt.Errorf("%q, %v", got, err)
				}
				return nil
			})
		})
	}
	t.Run("not for the pod's own address", func(t *testing.T) {
		svc.Waypoint = byName
		l.put(svc)
		if got, err := a.ask(b.app(), "x"); got != "x" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("unless the pod has one", func(t *testing.T) {
		r := b.workload()
		r.Waypoint = byName
		l.put(r)
		l.eventually("workload's waypoint", func() error {
			got, err := a.ask(b.app(), "x")
			if !strings.Contains(got, "|"+b.app()+"|") {
				return fmt.Errorf("%q, %v", got, err)
			}
			return nil
		})
	})
	t.Run("another identity is refused", func(t *testing.T) {
		// The waypoint's workload has another service account now; the listener still has the old certificate.
		l.put(record("other"))
		l.eventually("identity mismatch", func() error {
			// The pooled connection is for the old identity and must not be used for the new one.
			if _, err := a.ask(toVIP, "x"); !isReset(err) {
				return fmt.Errorf("got %v, want a reset", err)
			}
			return nil
		})
	})
	t.Run("a waypoint without pods refuses", func(t *testing.T) {
		l.istiod.Delete(w.workload().GetUid())
		l.eventually("no healthy upstream", func() error {
			if _, err := a.ask(toVIP, "x"); !isReset(err) {
				return fmt.Errorf("got %v, want a reset", err)
			}
			return nil
		})
	})
}
