// Package policy decides whether a connection may reach a workload: layer-4 authorization as ztunnel does it.
package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"istio.io/istio/pkg/workloadapi/security"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/ports"
)

// Connection is what policies match on. Source is the zero identity if no certificate proves one.
type Connection struct {
	Source   identity.Identity
	From, To netip.AddrPort
}

// Policy is one authorization policy.
type Policy struct {
	Name, Namespace string
	Scope           security.Scope
	Deny, DryRun    bool
	groups          []group
	raw             *security.Authorization
}

// Key is the name by which workloads refer to the policy, which is also the name of the xDS resource.
func (p *Policy) Key() string { return p.Namespace + "/" + p.Name }

// Raw returns the policy as the control plane sent it.
func (p *Policy) Raw() *security.Authorization { return p.raw }

// A policy matches if one of its groups does, a group if all of its rules do, a rule if it is empty or one of its
// matches does, a match if each kind of condition in it does.
type (
	group []rule
	rule  []match
)

type match struct {
	namespaces, principals pair[stringMatch]
	accounts               pair[account]
	sources, destinations  pair[netip.Prefix]
	ports                  pair[uint16]
}

type pair[T any] struct{ is, not []T }

func (p pair[T]) empty() bool { return len(p.is)+len(p.not) == 0 }

func (p pair[T]) matches(test func(T) bool) bool {
	any := func(list []T) bool {
		for _, v := range list {
			if test(v) {
				return true
			}
		}
		return false
	}
	return (len(p.is) == 0 || any(p.is)) && !any(p.not)
}

type stringMatch struct {
	kind  matchKind
	value string
}

type matchKind int

const (
	exact matchKind = iota
	prefix
	suffix
	present
)

func (m stringMatch) matches(s string) bool {
	switch m.kind {
	case exact:
		return s == m.value
	case prefix:
		return strings.HasPrefix(s, m.value)
	case suffix:
		return strings.HasSuffix(s, m.value)
	case present:
		return s != ""
	}
	return false
}

type account struct{ namespace, name string }

// Parse converts a policy from the control plane. It returns an error for a condition that it does not know: without
// the condition the policy could allow what it is meant to deny.
func Parse(a *security.Authorization) (*Policy, error) {
	p := &Policy{Name: a.GetName(), Namespace: a.GetNamespace(), Scope: a.GetScope(), DryRun: a.GetDryRun(), raw: a}
	switch a.GetAction() {
	case security.Action_ALLOW:
	case security.Action_DENY:
		p.Deny = true
	default:
		return nil, fmt.Errorf("policy %s: unknown action %d", p.Key(), a.GetAction())
	}
	if _, ok := security.Scope_name[int32(a.GetScope())]; !ok {
		return nil, fmt.Errorf("policy %s: unknown scope %d", p.Key(), a.GetScope())
	}
	for _, g := range a.GetGroups() {
		var parsed group
		for _, r := range g.GetRules() {
			var ms rule
			for _, m := range r.GetMatches() {
				one, err := parseMatch(m)
				if err != nil {
					return nil, fmt.Errorf("policy %s: %w", p.Key(), err)
				}
				ms = append(ms, one)
			}
			parsed = append(parsed, ms)
		}
		p.groups = append(p.groups, parsed)
	}
	return p, nil
}

func parseMatch(m *security.Match) (match, error) {
	var out match
	errs := make([]error, 0, 10)
	out.namespaces.is = each(m.GetNamespaces(), parseString, &errs)
	out.namespaces.not = each(m.GetNotNamespaces(), parseString, &errs)
	out.principals.is = each(m.GetPrincipals(), parseString, &errs)
	out.principals.not = each(m.GetNotPrincipals(), parseString, &errs)
	out.accounts.is = each(m.GetServiceAccounts(), parseAccount, &errs)
	out.accounts.not = each(m.GetNotServiceAccounts(), parseAccount, &errs)
	out.sources.is = each(m.GetSourceIps(), parsePrefix, &errs)
	out.sources.not = each(m.GetNotSourceIps(), parsePrefix, &errs)
	out.destinations.is = each(m.GetDestinationIps(), parsePrefix, &errs)
	out.destinations.not = each(m.GetNotDestinationIps(), parsePrefix, &errs)
	out.ports.is = each(m.GetDestinationPorts(), ports.Parse, &errs)
	out.ports.not = each(m.GetNotDestinationPorts(), ports.Parse, &errs)
	return out, errors.Join(errs...)
}

func each[F, T any](list []F, parse func(F) (T, error), errs *[]error) []T {
	out := make([]T, 0, len(list))
	for _, f := range list {
		t, err := parse(f)
		if err != nil {
			*errs = append(*errs, err)
			continue
		}
		out = append(out, t)
	}
	return out
}

func parseString(s *security.StringMatch) (stringMatch, error) {
	switch m := s.GetMatchType().(type) {
	case *security.StringMatch_Exact:
		return stringMatch{exact, m.Exact}, nil
	case *security.StringMatch_Prefix:
		return stringMatch{prefix, m.Prefix}, nil
	case *security.StringMatch_Suffix:
		return stringMatch{suffix, m.Suffix}, nil
	case *security.StringMatch_Presence:
		return stringMatch{kind: present}, nil
	}
	return stringMatch{}, fmt.Errorf("unknown kind of string match %T", s.GetMatchType())
}

func parseAccount(a *security.ServiceAccountMatch) (account, error) {
	return account{a.GetNamespace(), a.GetServiceAccount()}, nil
}

func parsePrefix(a *security.Address) (netip.Prefix, error) {
	addr, ok := netip.AddrFromSlice(a.GetAddress())
	if !ok {
		return netip.Prefix{}, fmt.Errorf("%d bytes are not an IP address", len(a.GetAddress()))
	}
	p, err := addr.Prefix(int(min(a.GetLength(), 1000)))
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("address range: %w", err)
	}
	return p, nil
}

// Matches reports whether the policy's conditions match c.
func (p *Policy) Matches(c Connection) bool {
	for _, g := range p.groups {
		if g.matches(c) {
			return true
		}
	}
	return false
}

func (g group) matches(c Connection) bool {
	for _, r := range g {
		if !r.matches(c) {
			return false
		}
	}
	return true
}

func (r rule) matches(c Connection) bool {
	for _, m := range r {
		if m.matches(c) {
			return true
		}
	}
	return len(r) == 0
}

func (m match) matches(c Connection) bool {
	if m.empty() {
		// istiod leaves a match empty if it has only conditions of layer 7.
		return false
	}
	// Policies name principals without the scheme. A connection without an identity has no principal, not an empty one.
	principal, proven := strings.CutPrefix(c.Source.String(), "spiffe://")
	return m.destinations.matches(func(p netip.Prefix) bool { return p.Contains(c.To.Addr()) }) &&
		m.sources.matches(func(p netip.Prefix) bool { return p.Contains(c.From.Addr()) }) &&
		m.ports.matches(func(p uint16) bool { return p == c.To.Port() }) &&
		m.accounts.matches(func(a account) bool {
			return proven && a.namespace == c.Source.Namespace && a.name == c.Source.ServiceAccount
		}) &&
		m.principals.matches(func(s stringMatch) bool { return proven && s.matches(principal) }) &&
		m.namespaces.matches(func(s stringMatch) bool { return s.matches(c.Source.Namespace) })
}

func (m match) empty() bool {
	return m.namespaces.empty() && m.principals.empty() && m.accounts.empty() &&
		m.sources.empty() && m.destinations.empty() && m.ports.empty()
}
