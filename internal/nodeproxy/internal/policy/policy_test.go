package policy

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"istio.io/istio/pkg/workloadapi/security"

	"ambientlab/nodeproxy/internal/identity"
)

var (
	appa    = identity.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "appa"}
	unknown = identity.Identity{}
)

func conn(id identity.Identity) Connection {
	return Connection{
		Source: id, From: netip.MustParseAddrPort("10.0.0.1:40000"),
		To: netip.MustParseAddrPort("10.0.0.2:8080"),
	}
}

func is(s string) []*security.StringMatch {
	return []*security.StringMatch{{MatchType: &security.StringMatch_Exact{Exact: s}}}
}

func starts(s string) []*security.StringMatch {
	return []*security.StringMatch{{MatchType: &security.StringMatch_Prefix{Prefix: s}}}
}

func ends(s string) []*security.StringMatch {
	return []*security.StringMatch{{MatchType: &security.StringMatch_Suffix{Suffix: s}}}
}

func some() []*security.StringMatch {
	return []*security.StringMatch{{MatchType: &security.StringMatch_Presence{}}}
}

func ips(s string) []*security.Address {
	p := netip.MustParsePrefix(s)
	return []*security.Address{{Address: p.Addr().AsSlice(), Length: uint32(p.Bits())}}
}

func TestMatch(t *testing.T) {
	const principal = "cluster.local/ns/default/sa/appa"
	for name, c := range map[string]struct {
		m             *security.Match
		appa, unknown bool
	}{
		"nothing at all":            {&security.Match{}, false, false},
		"principal":                 {&security.Match{Principals: is(principal)}, true, false},
		"principal with the scheme": {&security.Match{Principals: is("spiffe://" + principal)}, false, false},
		"principal by prefix":       {&security.Match{Principals: starts("cluster.local/ns/default/")}, true, false},
		"principal by suffix":       {&security.Match{Principals: ends("/sa/appa")}, true, false},
		"any principal":             {&security.Match{Principals: some()}, true, false},
		"no principal (STRICT)":     {&security.Match{NotPrincipals: some()}, false, true},
		"not this principal":        {&security.Match{NotPrincipals: is(principal)}, false, true},
		"not another principal":     {&security.Match{NotPrincipals: is("cluster.local/ns/x/sa/y")}, true, true},
		"namespace":                 {&security.Match{Namespaces: is("default")}, true, false},
		"not namespace":             {&security.Match{NotNamespaces: is("default")}, false, true},
		"any namespace":             {&security.Match{Namespaces: some()}, true, false},
		"account": {
			&security.Match{ServiceAccounts: []*security.ServiceAccountMatch{
				{Namespace: "default", ServiceAccount: "appa"},
			}}, true, false,
		},
		"account elsewhere": {
			&security.Match{ServiceAccounts: []*security.ServiceAccountMatch{{Namespace: "x", ServiceAccount: "appa"}}},
			false, false,
		},
		"not account": {
			&security.Match{NotServiceAccounts: []*security.ServiceAccountMatch{
				{Namespace: "default", ServiceAccount: "appa"},
			}}, false, true,
		},
		"port":             {&security.Match{DestinationPorts: []uint32{1, 8080}}, true, true},
		"other port":       {&security.Match{DestinationPorts: []uint32{1, 2}}, false, false},
		"not port":         {&security.Match{NotDestinationPorts: []uint32{8080}}, false, false},
		"source range":     {&security.Match{SourceIps: ips("10.0.0.0/24")}, true, true},
		"not source range": {&security.Match{NotSourceIps: ips("10.0.0.0/24")}, false, false},
		"destination":      {&security.Match{DestinationIps: ips("10.0.0.2/32")}, true, true},
		"both have to hold": {
			&security.Match{Principals: is(principal), DestinationPorts: []uint32{1}}, false,
			false,
		},
		"one of the kind suffices": {&security.Match{Principals: append(is("x"), is(principal)...)}, true, false},
		"positive and negative kind": {
			&security.Match{Namespaces: is("default"), NotPrincipals: is(principal)}, false,
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(&security.Authorization{
				Groups: []*security.Group{{Rules: []*security.Rules{{Matches: []*security.Match{c.m}}}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Matches(conn(appa)); got != c.appa {
				t.Errorf("appa: %v", got)
			}
			if got := p.Matches(conn(unknown)); got != c.unknown {
				t.Errorf("unknown: %v", got)
			}
		})
	}
}

func TestStructure(t *testing.T) {
	yes := &security.Match{DestinationPorts: []uint32{8080}}
	no := &security.Match{DestinationPorts: []uint32{1}}
	rules := func(list ...[]*security.Match) *security.Group {
		g := &security.Group{}
		for _, ms := range list {
			g.Rules = append(g.Rules, &security.Rules{Matches: ms})
		}
		return g
	}
	for name, c := range map[string]struct {
		groups []*security.Group
		want   bool
	}{
		"no group matches nothing": {nil, false},
		"empty group matches all":  {[]*security.Group{rules()}, true},
		"empty rule holds":         {[]*security.Group{rules(nil)}, true},
		"rules are joined by and":  {[]*security.Group{rules([]*security.Match{yes}, []*security.Match{no})}, false},
		"matches are joined by or": {[]*security.Group{rules([]*security.Match{no, yes})}, true},
		"groups are joined by or": {
			[]*security.Group{rules([]*security.Match{no}), rules([]*security.Match{yes})},
			true,
		},
		"an empty match among others": {[]*security.Group{rules([]*security.Match{{}, no})}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(&security.Authorization{Groups: c.groups})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Matches(conn(appa)); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	all := []*security.Group{{}}
	none := []*security.Group{{Rules: []*security.Rules{{Matches: []*security.Match{{DestinationPorts: []uint32{1}}}}}}}
	pol := func(
		name, ns string, scope security.Scope, action security.Action, groups []*security.Group, dry bool,
	) *security.Authorization {
		return &security.Authorization{
			Name: name, Namespace: ns, Scope: scope, Action: action, Groups: groups,
			DryRun: dry,
		}
	}
	const (
		global, space, bound = security.Scope_GLOBAL, security.Scope_NAMESPACE, security.Scope_WORKLOAD_SELECTOR
		allow, deny          = security.Action_ALLOW, security.Action_DENY
	)
	for name, c := range map[string]struct {
		policies []*security.Authorization
		bound    []string
		want     error
	}{
		"no policy": {nil, nil, nil},
		"allow matches": {
			[]*security.Authorization{pol("a", "default", space, allow, all, false)},
			nil, nil,
		},
		"allow does not match": {
			[]*security.Authorization{pol("a", "default", space, allow, none, false)},
			nil,
			Denial{},
		},
		"allow nothing": {
			[]*security.Authorization{pol("a", "default", space, allow, nil, false)},
			nil,
			Denial{},
		},
		"one of two allows": {
			[]*security.Authorization{
				pol("a", "default", space, allow, none, false),
				pol("b", "default", space, allow, all, false),
			}, nil, nil,
		},
		"deny wins": {
			[]*security.Authorization{
				pol("a", "default", space, allow, all, false),
				pol("d", "default", space, deny, all, false),
			}, nil, Denial{Policy: "default/d"},
		},
		"deny does not match": {
			[]*security.Authorization{pol("d", "default", space, deny, none, false)},
			nil, nil,
		},
		"other namespace": {
			[]*security.Authorization{pol("d", "other", space, deny, all, false)},
			nil,
			nil,
		},
		"root namespace": {
			[]*security.Authorization{pol("d", "istio-system", global, deny, all, false)},
			nil,
			Denial{Policy: "istio-system/d"},
		},
		"selector of another pod": {
			[]*security.Authorization{pol("d", "default", bound, deny, all, false)},
			nil,
			nil,
		},
		"selector of ours": {
			[]*security.Authorization{pol("d", "default", bound, deny, all, false)},
			[]string{"default/d"},
			Denial{Policy: "default/d"},
		},
		"selector of one not known yet": {nil, []string{"default/d"}, nil},
		"deny in dry run": {
			[]*security.Authorization{pol("d", "default", space, deny, all, true)},
			nil,
			nil,
		},
		"allow in dry run shuts nothing": {
			[]*security.Authorization{pol("a", "default", space, allow, none, true)},
			nil, nil,
		},
		"dry run opens nothing either": {
			[]*security.Authorization{
				pol("a", "default", space, allow, all, true),
				pol("b", "default", space, allow, none, false),
			}, nil, Denial{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(slog.New(slog.DiscardHandler))
			var ps []*Policy
			for _, a := range c.policies {
				p, err := Parse(a)
				if err != nil {
					t.Fatal(err)
				}
				ps = append(ps, p)
			}
			s.Update(ps, nil)
			if err := s.Check("default", c.bound, conn(appa)); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			s.Update(nil, []string{"default/a", "default/b", "default/d", "istio-system/d", "other/d"})
			if len(s.All()) > 0 {
				t.Error("policies stayed after removal")
			}
		})
	}
}

// TestParseRefuses holds what must not be taken half: a condition left out opens what it should shut.
func TestParseRefuses(t *testing.T) {
	in := func(m *security.Match) *security.Authorization {
		return &security.Authorization{
			Groups: []*security.Group{{Rules: []*security.Rules{{Matches: []*security.Match{m}}}}},
		}
	}
	for name, a := range map[string]*security.Authorization{
		"string of an unknown kind": in(&security.Match{NotPrincipals: []*security.StringMatch{{}}}),
		"address of three bytes":    in(&security.Match{SourceIps: []*security.Address{{Address: []byte{1, 2, 3}}}}),
		"range too long": in(
			&security.Match{SourceIps: []*security.Address{{Address: []byte{1, 2, 3, 4}, Length: 33}}}),
		"port too high":        in(&security.Match{NotDestinationPorts: []uint32{65536}}),
		"action of the future": {Action: 7},
		"scope of the future":  {Scope: 7},
	} {
		if _, err := Parse(a); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
