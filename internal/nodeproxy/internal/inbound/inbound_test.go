package inbound

import (
	"errors"
	"net/netip"
	"testing"

	"ambientlab/nodeproxy/internal/workload"
)

func target(authority string) (netip.AddrPort, error) {
	own := netip.MustParseAddr("10.0.0.2")
	w := &workload.Workload{
		UID: "appb", Namespace: "default", Addresses: []netip.Addr{own},
		Services: map[string]map[uint16]uint16{
			"default/appb.default.svc": {8000: 8080, 8001: 0, 8002: 15008},
		},
	}
	store := workload.NewStore()
	store.Update([]*workload.Workload{w}, []*workload.Service{
		{Namespace: "default", Hostname: "appb.default.svc", Ports: map[uint16]uint16{8000: 1, 8001: 9001, 8002: 0}},
		{Namespace: "default", Hostname: "other.default.svc", Ports: map[uint16]uint16{80: 80}},
	}, nil)
	return (&Server{workloads: store}).target(w, own, authority)
}

func TestTarget(t *testing.T) {
	for authority, want := range map[string]string{
		"10.0.0.2:8080":          "10.0.0.2:8080",
		"[::ffff:10.0.0.2]:8080": "10.0.0.2:8080",
		"appb.default.svc:8000":  "10.0.0.2:8080", // the endpoint's own port comes first
		"appb.default.svc:8001":  "10.0.0.2:9001",
		"10.0.0.3:8080":          "", "127.0.0.1:8080": "", "0.0.0.0:80": "", "[::1]:80": "",
		"10.0.0.2:0": "", "10.0.0.2:15001": "", "10.0.0.2:15006": "", "10.0.0.2:15008": "", "10.0.0.2": "",
		"appb.default.svc:8002": "", "appb.default.svc:9": "", "other.default.svc:80": "", "unknown:80": "", "": "",
		":": "", ":80": "",
	} {
		got, err := target(authority)
		if want == "" {
			if !errors.Is(err, errBadTarget) {
				t.Errorf("%q: %v, %v", authority, got, err)
			}
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("%q: %v, %v; want %s", authority, got, err, want)
		}
	}
}

// FuzzTarget: whatever a peer asks for, the proxy connects to its own pod and never to itself.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"10.0.0.2:8080", "appb.default.svc:8000", "[::1%eth0]:80", "10.0.0.2:15008"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, authority string) {
		got, err := target(authority)
		if err != nil {
			return
		}
		if p := got.Port(); got.Addr().String() != "10.0.0.2" || p == 0 || p == 15001 || p == 15006 || p == 15008 {
			t.Errorf("%q leads to %s", authority, got)
		}
	})
}

func TestForwardedHost(t *testing.T) {
	for in, want := range map[string]string{
		`for="10.0.0.1:1";host=appb.default.svc`: "appb.default.svc",
		`Host="a";for=x`:                         "a",
		`for=x, host=b`:                          "b",
		`for=x`:                                  "",
		``:                                       "",
		`host`:                                   "",
		`;;=;`:                                   "",
	} {
		if got := forwardedHost(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzForwardedHost(f *testing.F) {
	f.Add(`for="10.0.0.1:1";host=appb.default.svc`)
	f.Fuzz(func(t *testing.T, in string) {
		if got := forwardedHost(in); len(got) > len(in) {
			t.Errorf("%q from %q", got, in)
		}
	})
}
