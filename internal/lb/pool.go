package lb

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// Docker is the part of the Docker client a pool is computed from.
type Docker interface {
	node.Lister
	NetworkInspect(ctx context.Context, network string, options client.NetworkInspectOptions) (client.NetworkInspectResult, error)
}

// Pool is the addresses a lab's load balancers may have.
type Pool struct {
	// Network is the Docker network's name, Subnet its IPv4 subnet.
	Network string
	Subnet  netip.Prefix
	// Slot is the lab's share of the subnet.
	Slot int
	// Ranges are the slot's addresses less those that containers use: at least one.
	Ranges []Range
}

// Size is the number of addresses.
func (p Pool) Size() int {
	size := 0
	for _, r := range p.Ranges {
		size += r.Size()
	}
	return size
}

// Contains tells whether an address is one of the pool's.
func (p Pool) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(p.Ranges, func(r Range) bool { return r.Contains(a) })
}

// Find computes the pool of the cluster whose nodes these are, from the network as
// it is now. The result is the same each time as long as the labs on the network
// are the same. The error is a problem.
func Find(ctx context.Context, api Docker, nodes []node.Node) (Pool, error) {
	i := slices.IndexFunc(nodes, func(n node.Node) bool { return n.Network != "" })
	if i < 0 {
		return Pool{}, problem.New(problem.PoolExhausted, nil, "the cluster's nodes are on no Docker network, so no addresses can be computed").
			With("Set SM_METALLB=off and use the load balancer your cluster has.")
	}
	s, err := survey(ctx, api, nodes[i].Network)
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
		return Pool{}, problem.New(problem.PoolExhausted, nil, "every address of %s on Docker network %s is used by a container", whole, s.network)
	}
	return p, nil
}

// Choose gives the slot for a lab that is about to be created on the named network:
// the first that no lab has and no container sits in. A network that does not exist
// yet has every slot free.
func Choose(ctx context.Context, api Docker, network string) (int, error) {
	s, err := survey(ctx, api, network)
	if errdefs.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	_, count := slots(s.subnet)
	marked := make(map[int]bool)
	for _, c := range s.claims {
		marked[c.slot] = true
	}
	for i := range count {
		whole, err := slotRange(s.subnet, i)
		if err != nil {
			return 0, err
		}
		free := without(whole, s.taken)
		if !marked[i] && len(free) == 1 && free[0] == whole {
			return i, nil
		}
	}
	return 0, problem.New(problem.PoolExhausted, nil, "all %d shares of %s on Docker network %s are used by other labs or containers", count, s.subnet, s.network)
}

// claim is a lab's wish for a slot, as its node containers' marks tell it.
type claim struct {
	lab     string
	slot    int
	created int64
}

// picture is a Docker network as it is at one moment.
type picture struct {
	network string
	subnet  netip.Prefix
	taken   map[netip.Addr]bool
	claims  []claim
}

func survey(ctx context.Context, api Docker, network string) (picture, error) {
	inspected, err := api.NetworkInspect(ctx, network, client.NetworkInspectOptions{})
	if err != nil {
		return picture{}, fmt.Errorf("inspecting Docker network %s: %w", network, err)
	}
	subnet, reserved, err := subnet4(inspected.Network.IPAM.Config)
	if err != nil {
		return picture{}, problem.New(problem.PoolExhausted, err, "Docker network %s cannot give load-balancer addresses", network)
	}
	s := picture{network: network, subnet: subnet, taken: make(map[netip.Addr]bool)}
	for _, a := range reserved {
		s.taken[a.Unmap()] = true
	}
	for _, c := range inspected.Network.Containers {
		s.take(c.IPv4Address.Addr())
	}
	// A stopped container has no address, but may have asked for a fixed one.
	listed, err := api.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: client.Filters{}.Add("network", inspected.Network.ID),
	})
	if err != nil {
		return picture{}, fmt.Errorf("listing the containers on Docker network %s: %w", network, err)
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
		return picture{}, err
	}
	s.claims = claims(nodes, network)
	return s, nil
}

func (s *picture) take(a netip.Addr) {
	if a.IsValid() {
		s.taken[a.Unmap()] = true
	}
}

// claims lists the labs on a network, oldest first. Two that were made in the same
// second are told apart by name.
func claims(nodes []node.Node, network string) []claim {
	byLab := make(map[string]claim)
	for _, n := range nodes {
		if n.Mark == nil || n.Network != network {
			continue
		}
		c, seen := byLab[n.Cluster]
		if created := n.Created.Unix(); !seen || created < c.created {
			c = claim{lab: n.Cluster, slot: n.Mark.Slot, created: created}
		}
		byLab[n.Cluster] = c
	}
	list := make([]claim, 0, len(byLab))
	for _, c := range byLab {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.lab, b.lab))
	})
	return list
}

// slotOf settles who has which slot. Two labs created at the same moment may have
// chosen the same one, for neither saw the other; then the older keeps it and the
// younger has the first that nobody claims. Every lab comes to the same answer.
//
// A cluster without a mark is a kind cluster of the user's own on which the lab was
// asked to run MetalLB. It takes a slot from the far half by its name.
func (s picture) slotOf(cluster string) (int, error) {
	_, count := slots(s.subnet)
	used := make(map[int]bool)
	for _, c := range s.claims {
		used[c.slot] = true
	}
	held := make(map[int]bool)
	for _, c := range s.claims {
		slot := c.slot
		if held[slot] || slot >= count {
			slot = firstFree(used, count)
			if slot < 0 {
				return 0, problem.New(problem.PoolExhausted, nil, "all %d shares of %s on Docker network %s are used by other labs", count, s.subnet, s.network)
			}
			used[slot] = true
		}
		held[slot] = true
		if c.lab == cluster {
			return slot, nil
		}
	}
	far := count / 2
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(cluster)) // never fails
	for i := range count - far {
		if slot := far + (int(hash.Sum32()%uint32(count-far))+i)%(count-far); !used[slot] {
			return slot, nil
		}
	}
	return 0, problem.New(problem.PoolExhausted, nil, "all shares of %s on Docker network %s are used by other labs", s.subnet, s.network)
}

func firstFree(used map[int]bool, count int) int {
	for i := range count {
		if !used[i] {
			return i
		}
	}
	return -1
}
