// Package lb decides which addresses a lab's load balancers may have. The lab's
// nodes sit on a Docker network, where any address of its subnet can be reached from
// the host and from every node, so the pool is a piece of that subnet: at its high
// end, because Docker gives addresses out from the low end.
//
// The upper half of the subnet is divided into equal slots, counted from the top.
// Each lab on the network has one, and carries its number in the mark on its node
// containers, so labs side by side keep out of each other's way with nothing stored.
package lb

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/moby/moby/api/types/network"
)

// Range is a run of addresses, both ends included.
type Range struct{ First, Last netip.Addr }

// String writes the range as MetalLB reads it.
func (r Range) String() string { return fmt.Sprintf("%s-%s", r.First, r.Last) }

// Size is the number of addresses.
func (r Range) Size() int { return int(number(r.Last)-number(r.First)) + 1 }

// Contains tells whether the range holds the address.
func (r Range) Contains(a netip.Addr) bool {
	return a.Is4() && number(r.First) <= number(a) && number(a) <= number(r.Last)
}

// The smallest subnet that holds nodes and a pool, and the geometry of slots.
const (
	maxBits     = 28
	minSlotSize = 4
	maxSlotSize = 16
	maxSlots    = 64
)

// subnet4 picks the network's IPv4 subnet: Docker lists the entries of a dual-stack
// network in either order. reserved are the addresses Docker itself keeps for the
// gateway and by name.
func subnet4(entries []network.IPAMConfig) (subnet netip.Prefix, reserved []netip.Addr, err error) {
	for _, e := range entries {
		if !e.Subnet.IsValid() || !e.Subnet.Addr().Is4() {
			continue
		}
		subnet = e.Subnet.Masked()
		if subnet.Bits() > maxBits {
			return subnet, nil, fmt.Errorf("its subnet %s is smaller than a /%d", subnet, maxBits)
		}
		if e.Gateway.Is4() {
			reserved = append(reserved, e.Gateway)
		}
		for _, a := range e.AuxAddress {
			reserved = append(reserved, a)
		}
		return subnet, reserved, nil
	}
	return netip.Prefix{}, nil, fmt.Errorf("it has no IPv4 subnet (%d entries)", len(entries))
}

// slots gives the size and number of the slots of a subnet: an eighth of its upper
// half each, within bounds that suit a laptop.
func slots(subnet netip.Prefix) (size, count int) {
	half := 1 << (32 - subnet.Bits() - 1)
	size = min(max(half/8, minSlotSize), maxSlotSize)
	return size, min(half/size, maxSlots)
}

// slotRange gives slot i of the subnet; the last address of the subnet is its
// broadcast address and belongs to no slot.
func slotRange(subnet netip.Prefix, i int) (Range, error) {
	size, count := slots(subnet)
	if i < 0 || i >= count {
		return Range{}, fmt.Errorf("subnet %s has %d slots, and slot %d is not one of them", subnet, count, i)
	}
	broadcast := number(subnet.Addr()) + uint32(1)<<(32-subnet.Bits()) - 1
	top := broadcast - uint32(i*size)
	r := Range{First: address(top - uint32(size) + 1), Last: address(top)}
	if i == 0 {
		r.Last = address(broadcast - 1)
	}
	return r, nil
}

// without cuts addresses out of a range; what is left may be several ranges or none.
func without(r Range, taken map[netip.Addr]bool) []Range {
	var left []Range
	open := false
	for n := number(r.First); n <= number(r.Last); n++ {
		a := address(n)
		switch {
		case taken[a]:
			open = false
		case open:
			left[len(left)-1].Last = a
		default:
			left = append(left, Range{First: a, Last: a})
			open = true
		}
	}
	return left
}

func number(a netip.Addr) uint32 {
	raw := a.As4()
	return binary.BigEndian.Uint32(raw[:])
}

func address(n uint32) netip.Addr {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], n)
	return netip.AddrFrom4(raw)
}
