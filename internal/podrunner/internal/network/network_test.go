package network

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestAddresses(t *testing.T) {
	now := time.Unix(0, 0)
	a := NewAddresses(netip.MustParsePrefix("10.244.1.0/29"), func() time.Time { return now })
	take := func(wanted string) string {
		t.Helper()
		var had netip.Addr
		if wanted != "" {
			had = netip.MustParseAddr(wanted)
		}
		got, err := a.Take(had)
		if err != nil {
			return err.Error()
		}
		return got.String()
	}
	if got := take(""); got != "10.244.1.2" {
		t.Errorf("the first is %s", got)
	}
	if got := take("10.244.1.4"); got != "10.244.1.4" {
		t.Errorf("the one that the pod had: %s", got)
	}
	if got := take("10.244.2.4"); got != "10.244.1.3" {
		t.Errorf("one of another node: %s", got)
	}
	// One that was given back rests, unless its pod asks for it, or nothing else is left.
	a.Release(netip.MustParseAddr("10.244.1.3"))
	if got := take(""); got != "10.244.1.5" {
		t.Errorf("after a release: %s", got)
	}
	if got := take("10.244.1.3"); got != "10.244.1.3" {
		t.Errorf("back: %s", got)
	}
	a.Release(netip.MustParseAddr("10.244.1.3"))
	if got := []string{take(""), take("")}; !slices.Equal(got, []string{"10.244.1.6", "10.244.1.3"}) {
		t.Errorf("the last ones: %v", got)
	}
	if got := take(""); got != "all 5 addresses of 10.244.1.0/29 are in use" {
		t.Errorf("one too many: %s", got)
	}
	a.Release(netip.MustParseAddr("10.244.1.2"))
	now = now.Add(quarantine)
	if got := take(""); got != "10.244.1.2" {
		t.Errorf("after its rest: %s", got)
	}
}

func TestLast(t *testing.T) {
	for in, want := range map[string]string{
		"10.244.0.0/16": "10.244.255.254", "10.0.0.0/30": "10.0.0.2",
		"192.168.3.0/24": "192.168.3.254",
	} {
		if got := Last(netip.MustParsePrefix(in)).String(); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}

func service(name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: ports},
	}
}

func endpoints(port string, number int32, ready bool, addresses ...string) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: ptr.To(port), Port: ptr.To(number)}}}
	for _, address := range addresses {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(ready)},
		})
	}
	return slice
}

func TestServices(t *testing.T) {
	all := []*corev1.Service{
		service("b", "10.96.0.9", corev1.ServicePort{Name: "http", Port: 80},
			corev1.ServicePort{Name: "none", Port: 81}),
		service("a", "10.96.0.2", corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}),
		service("headless", corev1.ClusterIPNone, corev1.ServicePort{Name: "http", Port: 80}),
	}
	of := map[string][]*discoveryv1.EndpointSlice{
		"b": {
			endpoints("http", 8080, true, "10.244.0.3", "10.244.0.2"),
			endpoints("http", 8080, true, "10.244.0.3"), endpoints("http", 8080, false, "10.244.0.4"),
		},
		"a":        {endpoints("dns", 5353, true, "10.244.0.5")},
		"headless": {endpoints("http", 1, true, "10.244.0.6")},
	}
	got := Services(all, func(_, name string) []*discoveryv1.EndpointSlice { return of[name] })
	want := []Service{
		{
			Address: netip.MustParseAddrPort("10.96.0.2:53"), UDP: true,
			Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.5:5353")},
		},
		{
			Address: netip.MustParseAddrPort("10.96.0.9:80"),
			Endpoints: []netip.AddrPort{
				netip.MustParseAddrPort("10.244.0.2:8080"),
				netip.MustParseAddrPort("10.244.0.3:8080"),
			},
		},
	}
	if !slices.EqualFunc(got, want, func(a, b Service) bool {
		return a.Address == b.Address && a.UDP == b.UDP && slices.Equal(a.Endpoints, b.Endpoints)
	}) {
		t.Errorf("got %+v", got)
	}
}

func TestHosts(t *testing.T) {
	got := Hosts("ns", "pod", "10.244.0.2",
		[]*corev1.Service{service("b", "10.96.0.9"), service("headless", corev1.ClusterIPNone)})
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.244.0.2\tpod\n" +
		"10.96.0.9\tb.ns.svc.cluster.local b.ns.svc b.ns b\n"
	if got != want {
		t.Errorf("%q", got)
	}
	if other := Hosts("other", "pod", "",
		[]*corev1.Service{service("b",
			"10.96.0.9")}); other != "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"+
		"10.96.0.9\tb.ns.svc.cluster.local b.ns.svc b.ns\n" {
		t.Errorf("from another namespace: %q", other)
	}
}
