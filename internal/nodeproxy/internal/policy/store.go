package policy

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"istio.io/istio/pkg/workloadapi/security"
)

// Store holds every policy of the mesh. It is safe for concurrent use.
type Store struct {
	log *slog.Logger

	mu       sync.RWMutex
	policies map[string]*Policy
	watchers map[int]func()
	next     int
}

// NewStore returns an empty store that logs matches of policies in dry run to log.
func NewStore(log *slog.Logger) *Store {
	return &Store{log: log, policies: map[string]*Policy{}, watchers: map[int]func(){}}
}

// Update adds or replaces policies, deletes removed ones, and then calls the watchers.
func (s *Store) Update(policies []*Policy, removed []string) {
	s.mu.Lock()
	for _, key := range removed {
		delete(s.policies, key)
	}
	for _, p := range policies {
		s.policies[p.Key()] = p
	}
	watchers := slices.Collect(maps.Values(s.watchers))
	s.mu.Unlock()
	for _, w := range watchers {
		w()
	}
}

// Watch calls f after each change until stop is called.
func (s *Store) Watch(f func()) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.next
	s.next++
	s.watchers[id] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, id)
	}
}

// Denial is the error of a connection that the policies deny.
type Denial struct {
	// Policy is the DENY policy that matched, as namespace/name; it is empty if ALLOW policies exist and none matched.
	Policy string
}

func (d Denial) Error() string {
	if d.Policy != "" {
		return fmt.Sprintf("connection closed due to policy rejection: explicitly denied by: %s", d.Policy)
	}
	return "connection closed due to policy rejection: allow policies exist, but none allowed"
}

// Check returns a Denial if the policies deny a connection, and nil if they allow it. The workload is in namespace, and
// bound names the policies whose selectors select it. A DENY policy that matches denies; if there are ALLOW policies,
// one of them has to match. Policies in dry run are only logged.
func (s *Store) Check(namespace string, bound []string, c Connection) error {
	var allow []*Policy
	var denied *Policy
	s.mu.RLock()
	apply := func(p *Policy) {
		switch {
		case p.DryRun:
			if p.Matches(c) {
				s.log.Info("dry-run: policy match", "policy", p.Key(), "deny", p.Deny, "src.identity",
					c.Source.String(), "dst.addr", c.To.String())
			}
		case !p.Deny:
			allow = append(allow, p)
		case denied == nil && p.Matches(c):
			denied = p
		}
	}
	for _, p := range s.policies {
		if p.Scope == security.Scope_GLOBAL || p.Scope == security.Scope_NAMESPACE && p.Namespace == namespace {
			apply(p)
		}
	}
	for _, key := range bound {
		// An unknown name is skipped: updates of workloads and of policies arrive one after the other.
		if p := s.policies[key]; p != nil {
			apply(p)
		}
	}
	s.mu.RUnlock()
	if denied != nil {
		return Denial{Policy: denied.Key()}
	}
	if len(allow) == 0 {
		return nil
	}
	for _, p := range allow {
		if p.Matches(c) {
			return nil
		}
	}
	return Denial{}
}

// All returns every policy, ordered by key.
func (s *Store) All() []*Policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.SortedFunc(maps.Values(s.policies),
		func(a, b *Policy) int { return strings.Compare(a.Key(), b.Key()) })
}
