package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the daemon's own nftables table. With it, the image needs no iptables, the node can use the legacy or
// the nft kind of iptables, and the rules of kube-proxy and Istio are not affected.
const tableName = "ambientlab_nodenet"

// syncMasquerade makes traffic from pods to addresses outside the pod network come from the node's address, because the
// outside has no route to pods. Traffic between pods keeps its source address, on which Istio's policies depend.
func (n *network) syncMasquerade() error {
	key := strings.Join(n.subnets, ",")
	if n.masqueraded == key {
		return nil
	}
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	// Add, delete, add: the kernel applies a flush as one transaction, so the table is never missing.
	conn.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	conn.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	table := conn.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	cidrs, err := prefixes(n.subnets)
	if err != nil {
		return fmt.Errorf("reading the pod subnets: %w", err)
	}
	for _, cidr := range cidrs {
		_, subnet, err := net.ParseCIDR(cidr.String())
		if err != nil {
			return fmt.Errorf("reading the pod subnet %s: %w", cidr, err)
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: masquerade(subnet)})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("writing the masquerade rules: %w", err)
	}
	n.masqueraded = key
	n.log.Info("wrote the masquerade rules", "podSubnets", key)
	return nil
}

// masquerade is the rule `ip saddr SUBNET ip daddr != SUBNET masquerade`, for the subnet's family.
func masquerade(subnet *net.IPNet) []expr.Any {
	family, srcOffset, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if subnet.IP.To4() == nil {
		family, srcOffset, size = unix.NFPROTO_IPV6, 8, 16
	}
	match := func(offset uint32, op expr.CmpOp) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: subnet.Mask, Xor: make([]byte, size)},
			&expr.Cmp{Op: op, Register: 1, Data: subnet.IP[len(subnet.IP)-int(size):]},
		}
	}
	exprs := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
	}
	exprs = append(exprs, match(srcOffset, expr.CmpOpEq)...)
	// The destination follows the source in both headers.
	exprs = append(exprs, match(srcOffset+size, expr.CmpOpNeq)...)
	return append(exprs, &expr.Counter{}, &expr.Masq{})
}
