// Package lb computes the address pool for the load balancers of a lab. The host and every node reach each address of
// the Docker network on which the nodes are, so the pool is a part of its subnet: in the upper half, because Docker
// assigns addresses from the lower end.
//
// The upper half of the subnet is divided into equal slots, counted from the top. Each lab on the network owns one
// slot. The mark on the lab's node containers (package node) holds its number, so several labs on one network use
// different addresses.
package lb

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// Range is a range of addresses that includes First and Last.
type Range struct{ First, Last netip.Addr }

// String returns the range in the form that MetalLB reads.
func (r Range) String() string { return fmt.Sprintf("%s-%s", r.First, r.Last) }

// Size returns the number of addresses.
func (r Range) Size() int { return int(number(r.Last)-number(r.First)) + 1 }

// Contains reports whether the range contains an address.
func (r Range) Contains(a netip.Addr) bool {
	return a.Is4() && number(r.First) <= number(a) && number(a) <= number(r.Last)
}

// The smallest subnet with room for nodes and a pool, and the limits for the size and number of slots.
const (
	maxBits     = 28
	minSlotSize = 4
	maxSlotSize = 16
	maxSlots    = 64
)

// subnet4 returns the IPv4 subnet of a network (Docker lists the entries of a dual-stack network in any order) and the
// addresses that Docker reserves: the gateway and the auxiliary addresses.
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

// slots returns the size and number of the slots of a subnet. A slot is an eighth of the upper half, within the limits
// above.
func slots(subnet netip.Prefix) (size, count int) {
	half := 1 << (32 - subnet.Bits() - 1)
	size = min(max(half/8, minSlotSize), maxSlotSize)
	return size, min(half/size, maxSlots)
}

// slotRange returns the addresses of slot i of the subnet. The last address of the subnet is the broadcast address and
// is in no slot.
func slotRange(subnet netip.Prefix, i int) (Range, error) {
	size, count := slots(subnet)
	if i < 0 || i >= count {
		return Range{}, fmt.Errorf("subnet %s has no slot %d; it has slots 0 to %d", subnet, i, count-1)
	}
	broadcast := number(subnet.Addr()) + uint32(1)<<(32-subnet.Bits()) - 1
	top := broadcast - uint32(i*size)
	r := Range{First: address(top - uint32(size) + 1), Last: address(top)}
	if i == 0 {
		r.Last = address(broadcast - 1)
	}
	return r, nil
}

// without returns the ranges that remain of r without the taken addresses.
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

// rangeProgram is an awk program that reads the subnets of a Docker network and prints the range of slot 0 of the IPv4
// one.
const rangeProgram = `
function ip(n) { return int(n / 2^24) "." int(n / 2^16) % 256 "." int(n / 2^8) % 256 "." n % 256 }
/^[0-9.]+\/[0-9]+$/ {
  last = (($1 * 256 + $2) * 256 + $3) * 256 + $4 + 2^(32 - $5) - 1
  print ip(last - SIZE + 1) "-" ip(last - 1)
  exit
}`

// Commands returns shell commands that write the range of slot 0 into a file of Objects without addresses. They are for
// a Docker network that does not exist yet. Its subnet has at least 256 addresses, as those have that Docker chooses.
func Commands(network, file string) []string {
	return []string{
		fmt.Sprintf("addresses=$(docker network inspect %s "+
			"--format '{{range .IPAM.Config}}{{println .Subnet}}{{end}}' |\nawk -F '[./]' '%s')",
			network, strings.Replace(rangeProgram, "SIZE", strconv.Itoa(maxSlotSize), 1)),
		fmt.Sprintf(`sed "s/addresses: \[\]/addresses: [$addresses]/" %[1]s > %[1]s.new && mv %[1]s.new %[1]s`, file),
	}
}
