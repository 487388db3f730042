package main

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name string, podCIDRs []string, internal ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: podCIDRs}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}}
	for _, a := range internal {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

func TestRoutesTo(t *testing.T) {
	nodes := []*corev1.Node{
		node("self", []string{"10.244.0.0/24"}, "172.18.0.2"),
		node("dual", []string{"10.244.1.0/24", "fd00:10:244:1::/64"}, "172.18.0.3", "fc00::3"),
		node("without-cidr", nil, "172.18.0.4"),
		node("without-address", []string{"10.244.3.0/24"}),
		node("other-family", []string{"10.244.4.0/24"}, "fc00::5"),
	}
	got, err := routesTo(nodes, "self")
	if err != nil {
		t.Fatal(err)
	}
	want := []route{
		{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParseAddr("172.18.0.3")},
		{netip.MustParsePrefix("fd00:10:244:1::/64"), netip.MustParseAddr("fc00::3")},
	}
	if !slices.Equal(got, want) {
		t.Errorf("routes are %v, want %v", got, want)
	}
	if _, err := routesTo([]*corev1.Node{node("bad", []string{"10.244.0.0"})}, "self"); err == nil {
		t.Error("a pod CIDR that is none gave no error")
	}
}

func TestReadSettings(t *testing.T) {
	env := map[string]string{
		"NODE_NAME": "n", "POD_SUBNET": "10.244.0.0/16, fd00:10:244::/56",
		"CONTROL_PLANE_ENDPOINT": "cp:6443",
	}
	s, err := readSettings(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if s.node != "n" || s.endpoint != "cp:6443" ||
		!slices.Equal(s.subnets, []string{"10.244.0.0/16", "fd00:10:244::/56"}) {
		t.Errorf("settings are %+v", s)
	}
	if _, err := readSettings(func(string) string { return "" }); err == nil {
		t.Error("no settings gave no error")
	}
}
