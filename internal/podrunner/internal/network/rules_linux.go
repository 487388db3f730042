package network

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The expressions of a rule, as nft would write them. Register 1 holds what is compared.

func concat(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

// tcp matches IPv4 TCP packets.
func tcp() []expr.Any { return protocol(unix.IPPROTO_TCP) }

func protocol(number byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}},
	}
}

const (
	offsetSource, offsetDestination = 12, 16 // in an IPv4 header
	offsetPort                      = 2      // the destination's, in the TCP and UDP headers
)

// address compares an address of the IPv4 header.
func address(offset uint32, op expr.CmpOp, prefix netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{
			SourceRegister: 1,
			DestRegister:   1,
			Len:            4,
			Mask:           net.CIDRMask(prefix.Bits(), 32),
			Xor:            make([]byte, 4),
		},
		&expr.Cmp{Op: op, Register: 1, Data: prefix.Masked().Addr().AsSlice()},
	}
}

func destination(op expr.CmpOp, prefix netip.Prefix) []expr.Any {
	return address(offsetDestination, op, prefix)
}

// port compares the destination port.
func port(op expr.CmpOp, number uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offsetPort, Len: 2},
		&expr.Cmp{Op: op, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
	}
}

// mark compares the packet's mark under a mask.
func mark(op expr.CmpOp, value, mask uint32) []expr.Any {
	return masked(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, op, value, mask)
}

// connectionMark compares the connection's mark under a mask.
func connectionMark(op expr.CmpOp, value, mask uint32) []expr.Any {
	return masked(&expr.Ct{Key: expr.CtKeyMARK, Register: 1}, op, value, mask)
}

func masked(load expr.Any, op expr.CmpOp, value, mask uint32) []expr.Any {
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: native(mask), Xor: native(0)},
		&expr.Cmp{Op: op, Register: 1, Data: native(value)},
	}
}

// outgoing matches the device that a packet leaves by.
func outgoing(device string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

// redirect leads a connection to a port of this namespace.
func redirect(to uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(to)},
		&expr.Redir{RegisterProtoMin: 1},
	}
}

// changeDestination leads a connection to another address and port.
func changeDestination(to netip.AddrPort) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(to.Port())},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}

// oneOf matches one connection of n.
func oneOf(n int) []expr.Any {
	if n < 2 {
		return nil
	}
	return []expr.Any{
		&expr.Numgen{Register: 1, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native(0)},
	}
}

// refuse answers a packet with "port unreachable".
func refuse() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func native(value uint32) []byte { return binary.NativeEndian.AppendUint32(nil, value) }

// table replaces a whole table at once.
type table struct {
	conn  *nftables.Conn
	table *nftables.Table
}

// newTable begins a table of IPv4 rules that takes the place of an earlier one of its name when commit is called.
func newTable(name string) (*table, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	described := &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4}
	// The kernel takes all of it or nothing, so nothing is missing in between. The first makes sure that there is a
	// table to delete.
	conn.AddTable(described)
	conn.DelTable(described)
	return &table{conn: conn, table: conn.AddTable(described)}, nil
}

func (t *table) chain(
	name string,
	kind nftables.ChainType,
	hook *nftables.ChainHook,
	priority *nftables.ChainPriority,
	rules ...[]expr.Any,
) {
	chain := t.conn.AddChain(&nftables.Chain{Name: name, Table: t.table, Type: kind, Hooknum: hook, Priority: priority})
	for _, rule := range rules {
		t.conn.AddRule(&nftables.Rule{Table: t.table, Chain: chain, Exprs: rule})
	}
}

func (t *table) commit() error { return t.conn.Flush() }
