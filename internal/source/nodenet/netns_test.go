//go:build e2e && linux

package main

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
)

// TestReconcile drives a network of three nodes through joining, changing address and leaving, in a network namespace
// of its own. It needs root.
func TestReconcile(t *testing.T) {
	// The namespace is this thread's. It is never unlocked, so the thread ends with the test's goroutine.
	runtime.LockOSThread()
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	eth0 := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1450}, PeerName: "peer"}
	check(t, netlink.LinkAdd(eth0))
	check(t, netlink.AddrAdd(eth0,
		&netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 18, 0, 2).To4(), Mask: net.CIDRMask(16, 32)}}))
	check(t, netlink.LinkSetUp(eth0))
	foreign := route{netip.MustParsePrefix("10.99.0.0/24"), netip.MustParseAddr("172.18.0.9")}.netlink()
	foreign.Protocol = 3
	check(t, netlink.RouteAdd(foreign))

	path := filepath.Join(t.TempDir(), "10-lab.conflist")
	n := &network{
		self: "a", subnets: []string{"10.244.0.0/16", "fd00:10:244::/56"}, configPath: path,
		log: slog.New(slog.DiscardHandler),
	}
	a := node("a", []string{"10.244.0.0/24"}, "172.18.0.2")
	b := node("b", []string{"10.244.1.0/24"}, "172.18.0.3")
	moved := node("b", []string{"10.244.1.0/24"}, "172.18.0.5")
	c := node("c", []string{"10.244.2.0/24"}, "172.18.0.4")
	for _, step := range []struct {
		what  string
		nodes []*corev1.Node
		want  map[string]string
	}{
		{"alone", []*corev1.Node{a}, nil},
		{
			"two join",
			[]*corev1.Node{c, a, b},
			map[string]string{"10.244.1.0/24": "172.18.0.3", "10.244.2.0/24": "172.18.0.4"},
		},
		{
			"again",
			[]*corev1.Node{c, a, b},
			map[string]string{"10.244.1.0/24": "172.18.0.3", "10.244.2.0/24": "172.18.0.4"},
		},
		{
			"one moves",
			[]*corev1.Node{a, moved, c},
			map[string]string{"10.244.1.0/24": "172.18.0.5", "10.244.2.0/24": "172.18.0.4"},
		},
		{"one leaves", []*corev1.Node{a, moved}, map[string]string{"10.244.1.0/24": "172.18.0.5"}},
	} {
		if err := n.reconcile(step.nodes); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		have, err := ownRoutes()
		check(t, err)
		if len(have) != len(step.want) {
			t.Errorf("%s: routes are %v, want %v", step.what, have, step.want)
		}
		for r := range have {
			if step.want[r.dst.String()] != r.via.String() {
				t.Errorf("%s: route %v is not wanted", step.what, r)
			}
		}
	}
	if all, err := netlink.RouteListFiltered(netlink.FAMILY_V4, foreign, netlink.RT_FILTER_DST); err != nil ||
		len(all) != 1 {
		t.Errorf("another program's route is %v (%v), want it untouched", all, err)
	}
	raw, err := os.ReadFile(path)
	check(t, err)
	if mtu := read(t, path)["plugins"].([]any)[0].(map[string]any)["mtu"]; mtu != 1450.0 {
		t.Errorf("MTU is %v, want the link's 1450, in %s", mtu, raw)
	}

	// A daemon that restarts finds its table there, and leaves one rule for each subnet, not two.
	n.masqueraded = ""
	check(t, n.syncMasquerade())
	conn, err := nftables.New()
	check(t, err)
	rules, err := conn.GetRules(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet},
		&nftables.Chain{Name: "postrouting"})
	check(t, err)
	if len(rules) != 2 {
		t.Errorf("there are %d masquerade rules, want 2", len(rules))
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
