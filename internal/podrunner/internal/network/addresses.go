// Package network connects pods: a bridge, a pair of virtual Ethernet devices for each pod, the addresses, and the
// netfilter rules in each pod that find Services and that lead traffic to the node proxy.
package network

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Addresses gives out the addresses of one node's range.
type Addresses struct {
	mu       sync.Mutex
	prefix   netip.Prefix
	next     netip.Addr
	used     map[netip.Addr]bool
	released map[netip.Addr]time.Time
	now      func() time.Time
}

// quarantine is how long an address that was given back is not given out again: proxies may still hold connections and
// configuration for the pod that had it.
const quarantine = 2 * time.Minute

// NewAddresses gives out addresses of prefix, all but the first two (the network's and the gateway's, as CNI plug-ins
// do) and the last (broadcast).
func NewAddresses(prefix netip.Prefix, now func() time.Time) *Addresses {
	prefix = prefix.Masked()
	return &Addresses{
		prefix: prefix, next: prefix.Addr().Next().Next(),
		used: map[netip.Addr]bool{}, released: map[netip.Addr]time.Time{}, now: now,
	}
}

// Take gives an address that is not in use. wanted is taken where it is free, whenever it was last used: it is the one
// that the pod had before.
func (a *Addresses) Take(wanted netip.Addr) (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if wanted.IsValid() && a.prefix.Contains(wanted) && !a.used[wanted] {
		a.used[wanted] = true
		delete(a.released, wanted)
		return wanted, nil
	}
	first := a.prefix.Addr().Next().Next()
	// A range that is nearly used up gives what was released most recently only when nothing else is left.
	for _, patient := range []bool{true, false} {
		for candidate, looked := a.next, 0; looked < a.size(); looked++ {
			if !a.prefix.Contains(candidate.Next()) { // the last one is the broadcast address
				candidate = first
			}
			since, was := a.released[candidate]
			resting := was && a.now().Sub(since) < quarantine
			if !a.used[candidate] && (!resting || !patient) {
				a.used[candidate] = true
				delete(a.released, candidate)
				a.next = candidate.Next()
				return candidate, nil
			}
			candidate = candidate.Next()
		}
	}
	return netip.Addr{}, fmt.Errorf("all %d addresses of %s are in use", a.size(), a.prefix)
}

// size is how many addresses can be given out.
func (a *Addresses) size() int { return 1<<(a.prefix.Addr().BitLen()-a.prefix.Bits()) - 3 }

// Release gives an address back.
func (a *Addresses) Release(address netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.used[address] {
		delete(a.used, address)
		a.released[address] = a.now()
	}
}

// Last is the last usable address of a range: the bridge's, which no node's range reaches.
func Last(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Masked().Addr().As4()
	for bit := prefix.Bits(); bit < 32; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(bytes).Prev()
}
