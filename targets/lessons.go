package targets

import (
	"context"
	"os"
	"time"

	"ambientlab/internal/lab"
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
)

//revive:disable:line-length-limit `mage -h` reads a comment per flag and the line of variables

// Apps deploys appa and appb behind the Gateway and the HTTPRoute for appb.opssec.in, and says how to reach them.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_METALLB, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Apps(ctx context.Context,
	off *bool, // remove the applications and the gateway
) error {
	return lab.Run(ctx, "apps", lab.Lesson(lesson.Apps(), isSet(off)))
}

// Waypoint creates a waypoint for appb alone, ingress traffic included, and shows the listeners of its proxy and the gateway's.
// It returns when the waypoint is available, bound to the Service and has its configuration.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Waypoint(ctx context.Context,
	off *bool, // remove the waypoint
) error {
	return lab.Run(ctx, "waypoint", lab.Lesson(lesson.Waypoint(), isSet(off)))
}

// Fault delays a share of the requests under one path of appb; it returns when the waypoint runs it.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Fault(ctx context.Context,
	percent *float64, // share of the requests to delay, above 0 and up to 100; 50 unless given
	delay *time.Duration, // how long; 2s unless given
	path *string, // this path and every path that begins with it; /headers unless given
	exact *bool, // this path alone
	off *bool, // remove the delay
) error {
	fault := params.Fault{
		Percent: valueOr(percent, params.DefaultFault().Percent),
		Delay:   valueOr(delay, params.DefaultFault().Delay),
		Path:    valueOr(path, params.DefaultFault().Path),
		Exact:   isSet(exact),
	}
	return lab.Run(ctx, "fault", lab.Lesson(lesson.Fault(fault), isSet(off)))
}

// Authz lets only appa and the gateway GET from appb; it returns when the waypoint enforces it.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Authz(ctx context.Context,
	without *string, // callers that may not GET: appa, gateway-istio, or both with a comma; may be repeated
	strict *bool, // also close the ways around the waypoint: connections to the pod itself, and plaintext from outside the mesh
	off *bool, // remove the policies
) error {
	taken := lab.ListFlag(os.Args[1:], "authz", "without", valueOr(without, ""))
	return lab.Run(ctx, "authz", lab.Lesson(lesson.Authz(taken, isSet(strict)), isSet(off)))
}
