package targets

import (
	"context"
	"time"

	"ambientlab/internal/lesson/params"

	"ambientlab/internal/lab"
)

// Waypoint puts a waypoint before appb alone, ingress traffic included, and shows what its proxies then listen on.
// It returns when the waypoint is available, bound to the Service and holds its configuration.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_TIMEOUT, SM_OUTPUT, KUBECONFIG.
func Waypoint(ctx context.Context,
	off *bool, // take the waypoint away again
) error {
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error { return l.Waypoint(ctx, isSet(off)) })
}

// Fault delays a share of the requests under one path of appb; it returns when the waypoint runs it.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_TIMEOUT, SM_OUTPUT, KUBECONFIG.
func Fault(ctx context.Context,
	percent *float64, // share of the requests to delay, above 0 and up to 100; 50 unless given
	delay *time.Duration, // how long; 2s unless given
	path *string, // this path and every path that begins with it; /headers unless given
	exact *bool, // this path alone
	off *bool, // take the delay away again
) error {
	fault := params.Fault{
		Percent: valueOr(percent, params.DefaultFault().Percent),
		Delay:   valueOr(delay, params.DefaultFault().Delay),
		Path:    valueOr(path, params.DefaultFault().Path),
		Exact:   isSet(exact),
	}
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error { return l.Fault(ctx, fault, isSet(off)) })
}

// Authz lets only appa and the gateway GET from appb; it returns when the waypoint enforces it.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_TIMEOUT, SM_OUTPUT, KUBECONFIG.
func Authz(ctx context.Context,
	without *string, // identities to take out: appa, gateway-istio, or both with a comma
	strict *bool, // also close the ways around the waypoint: direct to the pod, plaintext from outside the mesh
	off *bool, // take the policies away again
) error {
	authz := lab.AuthzOptions{Without: valueOr(without, ""), Strict: isSet(strict)}
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error { return l.Authz(ctx, authz, isSet(off)) })
}
