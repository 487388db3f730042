package mesh

import (
	"fmt"
	"slices"
	"strings"
)

const rbacFilter = "envoy.filters.http.rbac"

// Policy is an ALLOW policy by identity and method. Without principals it denies every request.
type Policy struct {
	// Namespace and Name are the AuthorizationPolicy's.
	Namespace, Name string
	// Principals are written without spiffe://, such as cluster.local/ns/default/sa/appa.
	Principals []string
	Methods    []string
}

// Enforces tells whether a waypoint enforces the policy on a Service as wanted: the same identities, the same methods,
// no more and no fewer.
func Enforces(d *Dump, s Service, want Policy) (held bool, reason string) {
	managers, reason := d.serviceManagers(s)
	if reason != "" {
		return false, reason
	}
	for _, manager := range managers {
		rules := policyRules(manager, want.Namespace, want.Name)
		if len(rules) == 0 {
			return false, fmt.Sprintf("the waypoint does not enforce %s/%s on %s", want.Namespace, want.Name, s)
		}
		var principals, methods []string
		for _, rule := range rules {
			principals = append(principals, identities(rule.get("principals"))...)
			methods = append(methods, requestMethods(rule.get("permissions"))...)
		}
		if text, same := compare(principals, want.Principals); !same {
			return false, fmt.Sprintf("the waypoint allows %s under %s/%s, not %s", text, want.Namespace, want.Name,
				orNoCaller(want.Principals))
		}
		if len(want.Principals) == 0 {
			continue // no caller is allowed, so the rules name no methods
		}
		if text, same := compare(methods, want.Methods); !same {
			return false, fmt.Sprintf("the waypoint allows the methods %s under %s/%s, not %s", text, want.Namespace,
				want.Name, orNoCaller(want.Methods))
		}
	}
	return true, ""
}

// EnforcesNoOther tells whether a waypoint enforces no other ALLOW policy on a Service. An RBAC filter allows what any
// of its rules allows, so what one policy says is complete only where there is no other.
func EnforcesNoOther(d *Dump, s Service, namespace, name string) (alone bool, reason string) {
	managers, reason := d.serviceManagers(s)
	if reason != "" {
		return false, reason
	}
	own := rulePrefix(namespace, name)
	for _, manager := range managers {
		var others []string
		for rule := range allowRules(manager) {
			if !strings.HasPrefix(rule, own) {
				others = append(others, rule)
			}
		}
		if len(others) > 0 {
			slices.Sort(others)
			return false, fmt.Sprintf("the waypoint allows other requests to %s under %s", s,
				strings.Join(others, ", "))
		}
	}
	return true, ""
}

// DoesNotEnforce tells whether a waypoint enforces no such policy on a Service.
func DoesNotEnforce(d *Dump, s Service, namespace, name string) (gone bool, reason string) {
	managers, _ := d.serviceManagers(s)
	for _, manager := range managers {
		if len(policyRules(manager, namespace, name)) > 0 {
			return false, fmt.Sprintf("the waypoint still enforces %s/%s on %s", namespace, name, s)
		}
	}
	return true, ""
}

// rulePrefix begins the names of a policy's rules. Istio names each ns[<namespace>]-policy[<name>]-rule[<n>].
func rulePrefix(namespace, name string) string {
	return fmt.Sprintf("ns[%s]-policy[%s]-rule[", namespace, name)
}

// policyRules gives the ALLOW rules a connection manager got from a policy.
func policyRules(manager node, namespace, name string) []node {
	var rules []node
	for key, rule := range allowRules(manager) {
		if strings.HasPrefix(key, rulePrefix(namespace, name)) {
			rules = append(rules, rule)
		}
	}
	return rules
}

// allowRules gives every ALLOW rule of a connection manager by its name. ALLOW is the action's zero value, so it is
// mostly not written.
func allowRules(manager node) map[string]node {
	rules := map[string]node{}
	for _, filter := range manager.get("http_filters").list() {
		config := filter.get("typed_config", "rules")
		action := config.get("action").str()
		if filter.get("name").str() != rbacFilter || (action != "" && action != "ALLOW") {
			continue
		}
		for key, rule := range config.get("policies").fields() {
			rules[key] = node{rule}
		}
	}
	return rules
}

// identities lists the callers that a rule allows. Istio compares the caller's SPIFFE ID, kept in filter state at a
// waypoint; anything other than an exact comparison is listed as it is written, so that it equals nothing that was
// wanted. A rule for no caller is written as not(any).
func identities(principals node) []string {
	var found []string
	principals.each(func(n node) bool {
		for _, match := range []node{n.get("filter_state", "string_match"), n.get("authenticated", "principal_name")} {
			if !match.exists() {
				continue
			}
			name := match.text()
			if exact := match.get("exact").str(); exact != "" {
				name = strings.TrimPrefix(exact, "spiffe://")
			}
			found = append(found, name)
			return false
		}
		if not := n.get("not_id"); not.exists() {
			if !isTrue(not.get("any")) {
				found = append(found, "not "+not.text())
			}
			return false
		}
		if isTrue(n.get("any")) {
			found = append(found, "every caller")
		}
		return true
	})
	return found
}

// requestMethods lists the HTTP methods a rule allows; a rule for every method gives "any".
func requestMethods(permissions node) []string {
	var found []string
	permissions.each(func(n node) bool {
		if header := n.get("header"); header.get("name").str() == ":method" {
			method := header.get("string_match", "exact").str()
			if method == "" {
				method = header.text()
			}
			found = append(found, method)
			return false
		}
		if n.get("not_rule").exists() {
			return false
		}
		if isTrue(n.get("any")) {
			found = append(found, "any")
		}
		return true
	})
	return found
}

func isTrue(n node) bool {
	b, _ := n.value.(bool)
	return b
}

// compare tells whether two lists hold the same, whatever the order and repetition, and writes the first.
func compare(found, want []string) (text string, same bool) {
	unique := func(list []string) []string {
		sorted := slices.Clone(list)
		slices.Sort(sorted)
		return slices.Compact(sorted)
	}
	found, want = unique(found), unique(want)
	return orNoCaller(found), slices.Equal(found, want)
}

func orNoCaller(list []string) string {
	if len(list) == 0 {
		return "no caller"
	}
	return strings.Join(list, ", ")
}

// AuthzBeforeFault tells whether a waypoint judges a Service's requests before it delays any: a request that is denied
// is then answered at once.
func AuthzBeforeFault(d *Dump, s Service) (held bool, reason string) {
	managers, reason := d.serviceManagers(s)
	if reason != "" {
		return false, reason
	}
	for _, manager := range managers {
		rbac, fault := -1, -1
		for i, filter := range manager.get("http_filters").list() {
			switch filter.get("name").str() {
			case rbacFilter:
				if rbac < 0 {
					rbac = i
				}
			case faultFilter:
				fault = i
			}
		}
		switch {
		case rbac < 0:
			return false, fmt.Sprintf("the waypoint has no filter %s for %s", rbacFilter, s)
		case fault < 0:
			return false, fmt.Sprintf("the waypoint has no filter %s for %s", faultFilter, s)
		case fault < rbac:
			return false, fmt.Sprintf("the waypoint's filter %s comes before %s", faultFilter, rbacFilter)
		}
	}
	return true, ""
}
