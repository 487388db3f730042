package workload

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Store holds the workloads and services of the mesh. It is safe for concurrent use.
type Store struct {
	mu        sync.RWMutex
	workloads map[string]*Workload // by UID
	byAddress map[VIP]*Workload
	services  map[string]*Service // by Key
	byVIP     map[VIP][]*Service
	endpoints map[string]map[string]*Workload // by service key, then UID
	changed   chan struct{}
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{
		workloads: map[string]*Workload{}, byAddress: map[VIP]*Workload{},
		services: map[string]*Service{}, byVIP: map[VIP][]*Service{},
		endpoints: map[string]map[string]*Workload{},
		changed:   make(chan struct{}),
	}
}

// Update adds or replaces workloads and services and deletes removed ones in one step, so that no reader sees a part of
// it. Removed names are UIDs or service keys: xDS does not distinguish them.
func (s *Store) Update(workloads []*Workload, services []*Service, removed []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range removed {
		s.dropWorkload(name)
		s.dropService(name)
	}
	for _, svc := range services {
		s.dropService(svc.Key())
		s.services[svc.Key()] = svc
		for _, v := range svc.VIPs {
			s.byVIP[v] = append(s.byVIP[v], svc)
		}
	}
	for _, w := range workloads {
		s.dropWorkload(w.UID)
		s.workloads[w.UID] = w
		if !w.Shared {
			for _, a := range w.Addresses {
				s.byAddress[VIP{w.Network, a}] = w
			}
		}
		for key := range w.Services {
			if s.endpoints[key] == nil {
				s.endpoints[key] = map[string]*Workload{}
			}
			s.endpoints[key][w.UID] = w
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Store) dropWorkload(uid string) {
	w := s.workloads[uid]
	if w == nil {
		return
	}
	delete(s.workloads, uid)
	for _, a := range w.Addresses {
		// A new pod may already have the address of the removed one.
		if v := (VIP{w.Network, a}); s.byAddress[v] == w {
			delete(s.byAddress, v)
		}
	}
	for key := range w.Services {
		delete(s.endpoints[key], uid)
		if len(s.endpoints[key]) == 0 {
			delete(s.endpoints, key)
		}
	}
}

func (s *Store) dropService(key string) {
	svc := s.services[key]
	if svc == nil {
		return
	}
	delete(s.services, key)
	for _, v := range svc.VIPs {
		rest := slices.DeleteFunc(slices.Clone(s.byVIP[v]), func(o *Service) bool { return o == svc })
		if len(rest) == 0 {
			delete(s.byVIP, v)
		} else {
			s.byVIP[v] = rest
		}
	}
}

// ByAddress returns the workload that alone has an address, or nil.
func (s *Store) ByAddress(network string, a netip.Addr) *Workload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byAddress[VIP{network, a}]
}

// ByUID returns a workload, or nil.
func (s *Store) ByUID(uid string) *Workload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.workloads[uid]
}

// ServiceByVIP returns the service with an address, or nil. Of several services with the same address, the one in the
// client's namespace takes precedence, then the canonical one.
func (s *Store) ServiceByVIP(network string, a netip.Addr, namespace string) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return best(s.byVIP[VIP{network, a}], namespace)
}

// Service returns a service by its namespace and hostname, or nil.
func (s *Store) Service(namespace, hostname string) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.services[namespace+"/"+hostname]
}

// ServiceByHostname returns the service with a hostname, or nil, with the precedence of ServiceByVIP.
func (s *Store) ServiceByHostname(hostname, namespace string) *Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found []*Service
	for _, svc := range s.services {
		if svc.Hostname == hostname {
			found = append(found, svc)
		}
	}
	slices.SortFunc(found, func(a, b *Service) int { return strings.Compare(a.Key(), b.Key()) })
	return best(found, namespace)
}

func best(list []*Service, namespace string) *Service {
	var pick *Service
	for _, svc := range list {
		switch {
		case svc.Namespace == namespace:
			return svc
		case svc.NamespaceOnly:
		case pick == nil || svc.Canonical && !pick.Canonical:
			pick = svc
		}
	}
	return pick
}

// Endpoints returns the workloads of a service, ordered by UID.
func (s *Store) Endpoints(svc *Service) []*Workload {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := slices.Collect(maps.Values(s.endpoints[svc.Key()]))
	slices.SortFunc(list, func(a, b *Workload) int { return strings.Compare(a.UID, b.UID) })
	return list
}

// ServicesOf returns the services that a workload serves, ordered by key.
func (s *Store) ServicesOf(w *Workload) []*Service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []*Service
	for _, key := range slices.Sorted(maps.Keys(w.Services)) {
		if svc := s.services[key]; svc != nil {
			list = append(list, svc)
		}
	}
	return list
}

// Changed is closed at the next update.
func (s *Store) Changed() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changed
}

// Ref is the name of a pod in istio-cni's messages.
type Ref struct{ Name, Namespace, ServiceAccount string }

// Names reports whether w is the pod that r names.
func (r Ref) Names(w *Workload) bool {
	return w.Name == r.Name && w.Namespace == r.Namespace && w.ServiceAccount == or(r.ServiceAccount, "default")
}

// Local waits until the control plane has sent the pod's workload: a pod may send before that.
func (s *Store) Local(ctx context.Context, ref Ref) (*Workload, error) {
	for {
		s.mu.RLock()
		changed := s.changed
		var found *Workload
		for _, w := range s.workloads {
			if ref.Names(w) {
				found = w
				break
			}
		}
		s.mu.RUnlock()
		if found != nil {
			return found, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("failed to fetch information about local workload %s/%s (%s): %w",
				ref.Namespace, ref.Name, ref.ServiceAccount, context.Cause(ctx))
		}
	}
}

// All returns every workload and service, ordered.
func (s *Store) All() ([]*Workload, []*Service) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ws := slices.SortedFunc(maps.Values(s.workloads), func(a, b *Workload) int { return strings.Compare(a.UID, b.UID) })
	svcs := slices.SortedFunc(maps.Values(s.services),
		func(a, b *Service) int { return strings.Compare(a.Key(), b.Key()) })
	return ws, svcs
}
