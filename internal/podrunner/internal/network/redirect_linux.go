package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ambientlab/podrunner/internal/netns"
)

// What istio-cni and the node proxy agree on (istio.io/istio, cni/pkg/config and cni/pkg/nftables).
const (
	proxyMark      = 0x539 // on packets of the node proxy itself
	connectionSeen = 0x111 // on connections that the node proxy made, and on their answers
	markMask       = 0xfff
	outboundPort   = 15001
	plaintextPort  = 15006
	hbonePort      = 15008
	routeTable     = 100
	rulePriority   = 32764
)

// Redirect leads a pod's TCP traffic to the node proxy, by the rules that istio-cni makes in a pod of an ambient mesh
// without DNS capture.
func Redirect(pod *netns.Namespace) error {
	return pod.Do(func() error {
		if err := redirectRules(); err != nil {
			return fmt.Errorf("writing the rules that lead traffic to the node proxy: %w", err)
		}
		return answerRoute()
	})
}

func redirectRules() error {
	probe := netip.PrefixFrom(netip.AddrFrom4([4]byte(probeSource.To4())), 32)
	loopback := netip.MustParsePrefix("127.0.0.1/32")
	t, err := newTable("ambient")
	if err != nil {
		return err
	}
	// A connection that the node proxy made to the application is marked, and so are the answers, which are then routed
	// to the node proxy: it connects from the client's own address.
	t.chain("mangle-prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle,
		concat(mark(expr.CmpOpEq, proxyMark, markMask), setConnectionMark(connectionSeen)))
	t.chain("mangle-output", nftables.ChainTypeRoute, nftables.ChainHookOutput, nftables.ChainPriorityMangle,
		concat(connectionMark(expr.CmpOpEq, connectionSeen, markMask), restoreMark()))
	t.chain(
		"nat-prerouting",
		nftables.ChainTypeNAT,
		nftables.ChainHookPrerouting,
		nftables.ChainPriorityNATDest,
		concat(tcp(), address(offsetSource, expr.CmpOpEq, probe), accept()),
		concat(
			tcp(),
			destination(expr.CmpOpNeq, loopback),
			port(expr.CmpOpNeq, hbonePort),
			mark(expr.CmpOpNeq, proxyMark, markMask),
			redirect(plaintextPort),
		),
	)
	t.chain(
		"nat-output",
		nftables.ChainTypeNAT,
		nftables.ChainHookOutput,
		nftables.ChainPriorityNATDest,
		concat(tcp(), destination(expr.CmpOpEq, probe), accept()),
		concat(tcp(), mark(expr.CmpOpEq, connectionSeen, markMask), accept()),
		concat(tcp(), outgoing("lo"), destination(expr.CmpOpNeq, loopback), accept()),
		concat(
			tcp(),
			destination(expr.CmpOpNeq, loopback),
			mark(expr.CmpOpNeq, proxyMark, markMask),
			redirect(outboundPort),
		),
	)
	return t.commit()
}

// setConnectionMark sets the connection's mark and leaves the bits outside the mask.
func setConnectionMark(value uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(^uint32(markMask)), Xor: native(value)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	}
}

// restoreMark gives the packet the connection's mark.
func restoreMark() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	}
}

// answerRoute delivers packets with the connection's mark in this namespace, whatever their destination.
func answerRoute() error {
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("finding lo: %w", err)
	}
	everywhere := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	route := &netlink.Route{
		LinkIndex: loopback.Attrs().Index, Dst: everywhere, Scope: netlink.SCOPE_HOST, Type: unix.RTN_LOCAL,
		Table: routeTable,
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("adding the route of answers to the node proxy: %w", err)
	}
	mask := uint32(markMask)
	rule := netlink.NewRule()
	rule.Family, rule.Table, rule.Mark, rule.Mask, rule.Priority = unix.AF_INET, routeTable, connectionSeen, &mask,
		rulePriority
	if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("adding the rule for answers to the node proxy: %w", err)
	}
	return nil
}
