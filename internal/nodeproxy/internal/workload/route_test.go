package workload

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"istio.io/istio/pkg/workloadapi"

	"ambientlab/nodeproxy/internal/identity"
)

const (
	appb    = "default/appb.default.svc.cluster.local"
	gateway = "default/wp.default.svc.cluster.local"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func pod(name, ip string, services map[string]map[uint16]uint16) *Workload {
	return &Workload{
		UID: name, Name: name, Namespace: "default", ServiceAccount: name, TrustDomain: DefaultTrustDomain,
		Addresses: []netip.Addr{addr(ip)}, HBONE: true, Healthy: true, Capacity: 1, Services: services,
	}
}

func service() *Service {
	return &Service{
		Name: "appb", Namespace: "default", Hostname: "appb.default.svc.cluster.local",
		VIPs: []VIP{{"", addr("10.96.0.1")}}, Ports: map[uint16]uint16{8000: 8080, 8001: 0},
	}
}

func TestRoute(t *testing.T) {
	src := pod("appa", "10.0.0.1", nil)
	serves := map[string]map[uint16]uint16{appb: {8000: 8080, 8001: 9001}}
	wp := pod("wp-pod", "10.0.0.9", map[string]map[uint16]uint16{gateway: {15008: 15008}})
	wpService := &Service{
		Name: "wp", Namespace: "default", Hostname: "wp.default.svc.cluster.local",
		VIPs:  []VIP{{"", addr("10.96.0.9")}},
		Ports: map[uint16]uint16{15008: 15008},
		SANs:  []string{"spiffe://cluster.local/ns/default/sa/declared", "nonsense"},
	}
	byName := &Gateway{Namespace: "default", Hostname: "wp.default.svc.cluster.local", Port: 15008}
	byVIP := &Gateway{Address: addr("10.96.0.9"), Port: 15008}
	byPod := &Gateway{Address: addr("10.0.0.9"), Port: 15008}
	const vip = "10.96.0.1:8000"
	for name, c := range map[string]struct {
		change       func(b *Workload, svc *Service)
		dst          string
		dial, tunnel string
		fails        error
	}{
		"service":          {nil, vip, "10.0.0.2:15008", "10.0.0.2:8080", nil},
		"named port":       {nil, "10.96.0.1:8001", "10.0.0.2:15008", "10.0.0.2:9001", nil},
		"unknown port":     {nil, "10.96.0.1:7", "", "", ErrNoHealthyUpstream},
		"pod":              {nil, "10.0.0.2:8080", "10.0.0.2:15008", "10.0.0.2:8080", nil},
		"unknown address":  {nil, "1.1.1.1:443", "1.1.1.1:443", "", nil},
		"endpoint outside": {func(b *Workload, _ *Service) { b.HBONE = false }, vip, "10.0.0.2:8080", "", nil},
		"unhealthy": {
			func(b *Workload, _ *Service) { b.Healthy = false }, vip, "", "",
			ErrNoHealthyUpstream,
		},
		"unhealthy allowed": {
			func(b *Workload, s *Service) { b.Healthy, s.AllowAll = false, true }, vip,
			"10.0.0.2:15008", "10.0.0.2:8080", nil,
		},
		"no capacity": {
			func(b *Workload, _ *Service) { b.Capacity = 0 }, vip, "", "",
			ErrNoHealthyUpstream,
		},
		"other network": {func(b *Workload, _ *Service) { b.Network = "n2" }, vip, "", "", ErrOtherNetwork},
		"node's address": {
			func(b *Workload, _ *Service) { b.Shared = true }, "10.0.0.2:8080", "10.0.0.2:8080",
			"", nil,
		},
		"waypoint by hostname": {
			func(_ *Workload, s *Service) { s.Waypoint = byName }, vip, "10.0.0.9:15008", vip,
			nil,
		},
		"waypoint by VIP": {
			func(_ *Workload, s *Service) { s.Waypoint = byVIP }, vip, "10.0.0.9:15008", vip,
			nil,
		},
		"waypoint by address": {
			func(_ *Workload, s *Service) { s.Waypoint = byPod }, vip, "10.0.0.9:15008", vip,
			nil,
		},
		"weighted waypoint": {
			func(_ *Workload, s *Service) { s.Weighted = []WeightedGateway{{*byName, 0}, {*byPod, 3}} }, vip,
			"10.0.0.9:15008", vip, nil,
		},
		"waypoint of the pod": {
			func(b *Workload, _ *Service) { b.Waypoint = byName }, "10.0.0.2:8080",
			"10.0.0.9:15008", "10.0.0.2:8080", nil,
		},
		"but not for its service": {
			func(b *Workload, _ *Service) { b.Waypoint = byName }, vip, "10.0.0.2:15008",
			"10.0.0.2:8080", nil,
		},
		"passthrough service": {
			func(_ *Workload, s *Service) { s.LoadBalanced, s.Mode = true, workloadapi.LoadBalancing_PASSTHROUGH }, vip,
			vip, "", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, svc := pod("appb", "10.0.0.2", serves), service()
			if c.change != nil {
				c.change(b, svc)
			}
			s := NewStore()
			s.Update([]*Workload{src, b, wp}, []*Service{svc, wpService}, nil)
			r, err := s.Route(src, netip.MustParseAddrPort(c.dst))
			if c.fails != nil {
				if !errors.Is(err, c.fails) {
					t.Fatalf("got %+v, %v", r, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tunnel := ""
			if r.HBONE() {
				tunnel = r.Tunnel.String()
			}
			if r.Dial.String() != c.dial || tunnel != c.tunnel {
				t.Errorf("dial %s, tunnel %q; want %s, %q", r.Dial, tunnel, c.dial, c.tunnel)
			}
			if r.HBONE() && !slices.Contains(r.Peers, r.Destination.Identity()) {
				t.Errorf("peers %v without %v", r.Peers, r.Destination.Identity())
			}
		})
	}
	t.Run("a waypoint's own traffic", func(t *testing.T) {
		b := pod("appb", "10.0.0.2", serves)
		b.Waypoint = byName
		s := NewStore()
		s.Update([]*Workload{b, wp}, []*Service{wpService}, nil)
		r, err := s.Route(wp, netip.MustParseAddrPort("10.0.0.2:8080"))
		if err != nil || r.Dial.String() != "10.0.0.2:15008" {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("a missing waypoint is no open door", func(t *testing.T) {
		svc := service()
		svc.Waypoint = byName
		s := NewStore()
		s.Update([]*Workload{src, pod("appb", "10.0.0.2", serves)}, []*Service{svc}, nil)
		if r, err := s.Route(src, netip.MustParseAddrPort(vip)); err == nil {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("declared names", func(t *testing.T) {
		svc := service()
		svc.Waypoint = byName
		s := NewStore()
		s.Update([]*Workload{src, wp}, []*Service{svc, wpService}, nil)
		r, err := s.Route(src, netip.MustParseAddrPort(vip))
		want := []identity.Identity{
			wp.Identity(),
			{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "declared"},
		}
		if err != nil || !slices.Equal(r.Peers, want) {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

func TestPreferences(t *testing.T) {
	src := pod("appa", "10.0.0.1", nil)
	src.Zone, src.Node = "z1", "n1"
	serves := map[string]map[uint16]uint16{appb: {8000: 8080}}
	near, far := pod("near", "10.0.0.2", serves), pod("far", "10.0.0.3", serves)
	near.Zone, near.Node, far.Zone, far.Node = "z1", "n1", "z1", "n2"
	svc := service()
	svc.LoadBalanced, svc.Mode = true, workloadapi.LoadBalancing_FAILOVER
	svc.Preferences = []workloadapi.LoadBalancing_Scope{workloadapi.LoadBalancing_ZONE, workloadapi.LoadBalancing_NODE}
	s := NewStore()
	s.Update([]*Workload{src, near, far}, []*Service{svc}, nil)
	to := netip.MustParseAddrPort("10.96.0.1:8000")
	for range 50 {
		if r, err := s.Route(src, to); err != nil || r.Destination.UID != "near" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	s.Update(nil, nil, []string{"near"})
	if r, err := s.Route(src, to); err != nil || r.Destination.UID != "far" {
		t.Errorf("failover: %+v, %v", r, err)
	}
	svc2 := *svc
	svc2.Mode = workloadapi.LoadBalancing_STRICT
	s.Update(nil, []*Service{&svc2}, nil)
	if r, err := s.Route(src, to); !errors.Is(err, ErrNoHealthyUpstream) {
		t.Errorf("strict: %+v, %v", r, err)
	}
}

func TestSharedVIP(t *testing.T) {
	mk := func(ns string, canonical, private bool) *Service {
		return &Service{
			Namespace: ns, Hostname: "h", VIPs: []VIP{{"", addr("10.96.0.1")}}, Canonical: canonical,
			NamespaceOnly: private,
		}
	}
	s := NewStore()
	s.Update(nil, []*Service{mk("a", false, false), mk("b", true, false), mk("c", false, true)}, nil)
	for from, want := range map[string]string{"a": "a", "b": "b", "c": "c", "elsewhere": "b"} {
		if got := s.ServiceByVIP("", addr("10.96.0.1"), from); got == nil || got.Namespace != want {
			t.Errorf("from %s: %+v, want %s", from, got, want)
		}
		if got := s.ServiceByHostname("h", from); got == nil || got.Namespace != want {
			t.Errorf("by name from %s: %+v, want %s", from, got, want)
		}
	}
	s.Update(nil, nil, []string{"a/h", "b/h"})
	if got := s.ServiceByVIP("", addr("10.96.0.1"), "elsewhere"); got != nil {
		t.Errorf("a private service is seen from elsewhere: %+v", got)
	}
}

// TestReusedAddress has a new pod take over an address before the record of the old one is removed.
func TestReusedAddress(t *testing.T) {
	s := NewStore()
	s.Update([]*Workload{pod("old", "10.0.0.2", nil)}, nil, nil)
	s.Update([]*Workload{pod("new", "10.0.0.2", nil)}, nil, nil)
	s.Update(nil, nil, []string{"old"})
	if w := s.ByAddress("", addr("10.0.0.2")); w == nil || w.UID != "new" {
		t.Errorf("got %+v", w)
	}
}

func TestLocalWaits(t *testing.T) {
	s := NewStore()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	got := make(chan *Workload, 1)
	go func() {
		w, _ := s.Local(ctx, Ref{"appa", "default", "appa"})
		got <- w
	}()
	s.Update([]*Workload{pod("other", "10.0.0.3", nil)}, nil, nil)
	s.Update([]*Workload{pod("appa", "10.0.0.1", nil)}, nil, nil)
	if w := <-got; w == nil || w.Name != "appa" {
		t.Errorf("got %+v", w)
	}
	// A pod of the right name with another account is another pod.
	short, end := context.WithTimeout(ctx, 50*time.Millisecond)
	defer end()
	if w, err := s.Local(short, Ref{"appa", "default", "admin"}); err == nil {
		t.Errorf("got %+v", w)
	}
}
