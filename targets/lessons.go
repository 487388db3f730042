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

// Waypoint creates a waypoint for appb, which ingress traffic uses too, and prints the listeners of the waypoint and the gateway.
// It returns when the waypoint is available, bound to the Service and has its configuration.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Waypoint(ctx context.Context,
	off *bool, // remove the waypoint
) error {
	return lab.Run(ctx, "waypoint", lab.Lesson(lesson.Waypoint(), isSet(off)))
}

// Fault delays a share of the requests under one path of appb; it returns when the waypoint's configuration has the delay.
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

// Authz allows only appa and the gateway to send GET requests to appb; it returns when the waypoint enforces this.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Authz(ctx context.Context,
	without *string, // callers to leave out: appa, gateway-istio, or both, separated by a comma; may be repeated
	strict *bool, // also close the ways around the waypoint: connections to the pod itself, and plaintext from outside the mesh
	off *bool, // remove the policies
) error {
	taken := lab.ListFlag(os.Args[1:], "authz", "without", valueOr(without, ""))
	return lab.Run(ctx, "authz", lab.Lesson(lesson.Authz(taken, isSet(strict)), isSet(off)))
}

// Split adds a second version of appb and sends a share of the requests to it; it returns when the waypoint's configuration has the shares.
// It cannot be on together with sm:fault, and is no part of sm:lab.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Split(ctx context.Context,
	weight *int, // percentage of the requests that version 1 keeps, 1 to 99; 90 unless given
	off *bool, // remove the second version and the route
) error {
	return lab.Run(ctx, "split", lab.Lesson(lesson.Split(valueOr(weight, lesson.DefaultWeight)), isSet(off)))
}

// L4 applies a policy that ztunnel enforces: it refuses connections from appa's identity to appb's pod. L4 returns when ztunnel has it.
// It is no part of sm:lab.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func L4(ctx context.Context,
	http *bool, // allow appa's GET in the policy, to see what ztunnel makes of an HTTP term
	off *bool, // remove the policy
) error {
	return lab.Run(ctx, "l4", lab.Lesson(lesson.L4(isSet(http)), isSet(off)))
}

// Telemetry lets sm:verify judge what the installed telemetry add-ons show of the traffic, and says what they cannot show.
// It is no part of sm:lab.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Telemetry(ctx context.Context,
	off *bool, // do not judge the add-ons any more
) error {
	return lab.Run(ctx, "telemetry", lab.Lesson(lesson.Telemetry(), isSet(off)))
}
