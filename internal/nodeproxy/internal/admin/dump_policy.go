package admin

import (
	"net/netip"

	"istio.io/istio/pkg/workloadapi/security"
)

func dumpPolicy(a *security.Authorization) object {
	groups := [][][]object{}
	for _, g := range a.GetGroups() {
		rules := [][]object{}
		for _, r := range g.GetRules() {
			matches := []object{}
			for _, m := range r.GetMatches() {
				matches = append(matches, dumpMatch(m))
			}
			rules = append(rules, matches)
		}
		groups = append(groups, rules)
	}
	scope := map[security.Scope]string{
		security.Scope_GLOBAL: "Global", security.Scope_NAMESPACE: "Namespace",
		security.Scope_WORKLOAD_SELECTOR: "WorkloadSelector",
	}
	action := map[security.Action]string{security.Action_ALLOW: "Allow", security.Action_DENY: "Deny"}
	return object{
		"name": a.GetName(), "namespace": a.GetNamespace(), "scope": scope[a.GetScope()],
		"action": action[a.GetAction()], "dryRun": a.GetDryRun(), "rules": groups,
	}
}

func dumpMatch(m *security.Match) object {
	o := object{}
	put(o, "namespaces", m.GetNamespaces(), dumpString)
	put(o, "notNamespaces", m.GetNotNamespaces(), dumpString)
	put(o, "principals", m.GetPrincipals(), dumpString)
	put(o, "notPrincipals", m.GetNotPrincipals(), dumpString)
	put(o, "serviceAccounts", m.GetServiceAccounts(), dumpAccount)
	put(o, "notServiceAccounts", m.GetNotServiceAccounts(), dumpAccount)
	put(o, "sourceIps", m.GetSourceIps(), dumpRange)
	put(o, "notSourceIps", m.GetNotSourceIps(), dumpRange)
	put(o, "destinationIps", m.GetDestinationIps(), dumpRange)
	put(o, "notDestinationIps", m.GetNotDestinationIps(), dumpRange)
	put(o, "destinationPorts", m.GetDestinationPorts(), func(p uint32) any { return p })
	put(o, "notDestinationPorts", m.GetNotDestinationPorts(), func(p uint32) any { return p })
	return o
}

func put[T any](o object, name string, list []T, dump func(T) any) {
	if len(list) == 0 {
		return
	}
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = dump(v)
	}
	o[name] = out
}

func dumpString(s *security.StringMatch) any {
	switch m := s.GetMatchType().(type) {
	case *security.StringMatch_Exact:
		return object{"Exact": m.Exact}
	case *security.StringMatch_Prefix:
		return object{"Prefix": m.Prefix}
	case *security.StringMatch_Suffix:
		return object{"Suffix": m.Suffix}
	}
	return object{"Presence": object{}}
}

func dumpAccount(a *security.ServiceAccountMatch) any {
	return object{"namespace": a.GetNamespace(), "serviceAccount": a.GetServiceAccount()}
}

func dumpRange(a *security.Address) any {
	addr, _ := netip.AddrFromSlice(a.GetAddress())
	return netip.PrefixFrom(addr, int(a.GetLength())).String()
}
