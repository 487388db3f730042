package mesh

import (
	"context"
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"ambientlab/internal/problem"
)

// ZtunnelKnows is met when every ztunnel on a node with a pod of the target's Service has a policy of the Service's
// namespace. Where no packets flow there is no ztunnel to ask, and it is met.
func ZtunnelKnows(t Target, name string) Condition {
	return Condition{
		title: "policy " + name,
		look: func(ctx context.Context, p *proxies) (*problem.Problem, error) {
			return p.policyAtZtunnels(ctx, t.Service, t.Service.Namespace, name, true)
		},
	}
}

// DeniesTrouble says why a policy does not deny connections from a service account. It is given nil for a policy that
// does not exist, and says nothing then: PolicyTrouble does.
func DeniesTrouble(account string, policy *securityv1.AuthorizationPolicy) *problem.Problem {
	if policy == nil {
		return nil
	}
	if action := policy.Spec.GetAction(); action != securityapi.AuthorizationPolicy_DENY {
		return problem.New(problem.ConfigNotAttached, nil, "AuthorizationPolicy %s has action %s, not "+
			"DENY", policy.Name,
			action)
	}
	var denied []string
	for _, rule := range policy.Spec.GetRules() {
		for _, from := range rule.GetFrom() {
			denied = append(denied, from.GetSource().GetPrincipals()...)
		}
	}
	if slices.ContainsFunc(denied, func(p string) bool { return strings.HasSuffix(p, "/sa/"+account) }) {
		return nil
	}
	return problem.New(problem.ConfigNotAttached, nil, "AuthorizationPolicy %s denies %s, not %s", policy.Name,
		orNone(denied), fmt.Sprintf("the service account %s", account))
}
