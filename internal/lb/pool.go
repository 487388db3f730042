package lb

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// Docker is the part of the Docker client that this package uses.
type Docker interface {
	node.Lister
	NetworkInspect(
		ctx context.Context, network string, options client.NetworkInspectOptions,
	) (client.NetworkInspectResult, error)
}

// Pool is the set of addresses for the load balancers of a lab.
type Pool struct {
	// Network is the name of the Docker network, or empty if the addresses are of none; Subnet is the IPv4 subnet.
	Network string
	Subnet  netip.Prefix
	// Slot is the number of the lab's slot.
	Slot int
	// Ranges are the addresses of the slot without those that containers use. There is at least one range.
	Ranges []Range
}

// Size returns the number of addresses.
func (p Pool) Size() int {
	size := 0
	for _, r := range p.Ranges {
		size += r.Size()
	}
	return size
}

// Contains reports whether the pool contains an address.
func (p Pool) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(p.Ranges, func(r Range) bool { return r.Contains(a) })
}

// Find computes the pool of the cluster that nodes belong to. The result does not change as long as the labs and
// containers on the Docker network do not change. The error is a problem.PoolExhausted, or the Docker client's.
func Find(ctx context.Context, api Docker, nodes []node.Node) (Pool, error) {
	i := slices.IndexFunc(nodes, func(n node.Node) bool { return n.Network != "" })
	if i < 0 {
		return Pool{}, problem.New(problem.PoolExhausted, nil,
			"the nodes of the cluster are not on a Docker network, so the lab cannot compute load-balancer addresses").
			With("Set SM_METALLB=off and use the load balancer of the cluster.")
	}
	s, err := inspect(ctx, api, nodes[i].Network)
	if err != nil {
		return Pool{}, err
	}
	slot, err := s.slotOf(nodes[i].Cluster)
	if err != nil {
		return Pool{}, err
	}
	p := Pool{Network: s.network, Subnet: s.subnet, Slot: slot}
	whole, err := slotRange(s.subnet, slot)
	if err != nil {
		return Pool{}, problem.New(problem.PoolExhausted, err, "Docker network %s", s.network)
	}
	if p.Ranges = without(whole, s.taken); len(p.Ranges) == 0 {
		return Pool{}, problem.New(problem.PoolExhausted, nil,
			"containers use every address of %s on Docker network %s", whole, s.network)
	}
	return p, nil
}

// Choose returns the slot for a new lab on the named network: the first slot that no lab has chosen or uses, and in
// which no container has an address. It returns 0 for a network that does not exist. The error is a
// problem.PoolExhausted if there is no such slot, or the Docker client's.
func Choose(ctx context.Context, api Docker, network string) (int, error) {
	s, err := inspect(ctx, api, network)
	if errdefs.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	_, count := slots(s.subnet)
	used := make(map[int]bool)
	for _, o := range s.owners {
		used[o.slot] = true
		// A lab whose slot an older lab has chosen too uses another one than its mark says.
		if slot, err := s.slotOf(o.lab); err == nil {
			used[slot] = true
		}
	}
	for i := range count {
		whole, err := slotRange(s.subnet, i)
		if err != nil {
			return 0, err
		}
		free := without(whole, s.taken)
		if !used[i] && len(free) == 1 && free[0] == whole {
			return i, nil
		}
	}
	return 0, problem.New(problem.PoolExhausted, nil,
		"other labs or containers use all %d slots of %s on Docker network %s", count, s.subnet, s.network)
}

// Planned computes the pool of a lab that does not exist: the whole slot that Choose returns. The error is as Choose's,
// but that a network which does not exist is the Docker client's error too.
func Planned(ctx context.Context, api Docker, network string) (Pool, error) {
	s, err := inspect(ctx, api, network)
	if err != nil {
		return Pool{}, err
	}
	slot, err := Choose(ctx, api, network)
	if err != nil {
		return Pool{}, err
	}
	whole, err := slotRange(s.subnet, slot)
	return Pool{Network: network, Subnet: s.subnet, Slot: slot, Ranges: []Range{whole}}, err
}

// owner is a lab and the slot that the marks of its node containers name.
type owner struct {
	lab     string
	slot    int
	created int64
}

// state is the state of a Docker network.
type state struct {
	network string
	subnet  netip.Prefix
	taken   map[netip.Addr]bool
	owners  []owner // see owners
}

func inspect(ctx context.Context, api Docker, network string) (state, error) {
	inspected, err := api.NetworkInspect(ctx, network, client.NetworkInspectOptions{})
	if err != nil {
		return state{}, fmt.Errorf("inspecting Docker network %s: %w", network, err)
	}
	subnet, reserved, err := subnet4(inspected.Network.IPAM.Config)
	if err != nil {
		return state{}, problem.New(problem.PoolExhausted, err,
			"Docker network %s has no usable addresses for load balancers", network)
	}
	s := state{network: network, subnet: subnet, taken: make(map[netip.Addr]bool)}
	for _, a := range reserved {
		s.taken[a.Unmap()] = true
	}
	for _, c := range inspected.Network.Containers {
		s.take(c.IPv4Address.Addr())
	}
	// A stopped container has no address, but may have a configured one.
	listed, err := api.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("network", inspected.Network.ID),
	})
	if err != nil {
		return state{}, fmt.Errorf("listing the containers on Docker network %s: %w", network, err)
	}
	for _, c := range listed.Items {
		if c.NetworkSettings == nil {
			continue
		}
		for _, ep := range c.NetworkSettings.Networks {
			if ep == nil {
				continue
			}
			s.take(ep.IPAddress)
			if ep.IPAMConfig != nil {
				s.take(ep.IPAMConfig.IPv4Address)
			}
		}
	}
	nodes, err := node.List(ctx, api, "")
	if err != nil {
		return state{}, err
	}
	s.owners = owners(nodes, network)
	return s, nil
}

func (s *state) take(a netip.Addr) {
	if a.IsValid() {
		s.taken[a.Unmap()] = true
	}
}

// owners lists the labs on a network, oldest first; labs created in the same second are ordered by name.
func owners(nodes []node.Node, network string) []owner {
	byLab := make(map[string]owner)
	for _, n := range nodes {
		if n.Mark == nil || n.Network != network {
			continue
		}
		o, seen := byLab[n.Cluster]
		if created := n.Created.Unix(); !seen || created < o.created {
			o = owner{lab: n.Cluster, slot: n.Mark.Slot, created: created}
		}
		byLab[n.Cluster] = o
	}
	list := slices.Collect(maps.Values(byLab))
	slices.SortFunc(list, func(a, b owner) int {
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.lab, b.lab))
	})
	return list
}

// slotOf returns the slot of a cluster. Two labs that were created at the same moment may have chosen the same slot,
// because neither saw the other. Then the older lab keeps the slot, and the younger one gets the first slot that no lab
// chose. slotOf gives the same answer for every lab.
//
// A cluster without a mark is a kind cluster of the user on which the lab installs MetalLB. It gets a slot in the
// second half of the slots: the one with the FNV-1a hash of its name modulo their number, or the next free one.
func (s state) slotOf(cluster string) (int, error) {
	_, count := slots(s.subnet)
	used := make(map[int]bool)
	for _, o := range s.owners {
		used[o.slot] = true
	}
	held := make(map[int]bool)
	for _, o := range s.owners {
		slot := o.slot
		if held[slot] || slot >= count {
			slot = firstFree(used, count)
			if slot < 0 {
				return 0, problem.New(problem.PoolExhausted, nil,
					"other labs use all %d slots of %s on Docker network %s", count, s.subnet, s.network)
			}
			used[slot] = true
		}
		held[slot] = true
		if o.lab == cluster {
			return slot, nil
		}
	}
	half := count / 2
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(cluster)) // never fails
	first := int(hash.Sum32() % uint32(half))
	for i := range half {
		if slot := half + (first+i)%half; !used[slot] {
			return slot, nil
		}
	}
	return 0, problem.New(problem.PoolExhausted, nil,
		"other labs use all slots in the second half of %s on Docker network %s", s.subnet, s.network)
}

func firstFree(used map[int]bool, count int) int {
	for i := range count {
		if !used[i] {
			return i
		}
	}
	return -1
}
