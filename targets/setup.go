// Package targets holds the Mage targets, one exported function each. A target reads its flags, calls internal/lab
// and does nothing else.
package targets

import (
	"context"

	"ambientlab/internal/lab"
)

// Install creates or reuses the cluster and installs the mesh: MetalLB, Gateway API, ambient Istio, telemetry.
// INSTALL_KIND=n takes the cluster of the current kubeconfig context instead of a kind cluster of the lab's own.
// Running it again changes nothing that is already right and mends what is not.
func Install(ctx context.Context) error {
	return lab.Run(ctx, (*lab.Lab).Install)
}

// Apps deploys appa and appb behind the Gateway and the HTTPRoute for appb.opssec.in, and says how to reach them.
func Apps(ctx context.Context,
	off *bool, // take the applications and the gateway away again
) error {
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error { return l.Apps(ctx, isSet(off)) })
}

// Lab does everything in order: install, apps, waypoint, fault, authz, then verifies what it claims.
func Lab(ctx context.Context) error {
	return lab.Run(ctx, (*lab.Lab).All)
}

// Delete removes the cluster that the lab created or, on an existing cluster, the lab's own objects and nothing else.
func Delete(ctx context.Context) error {
	return lab.Run(ctx, (*lab.Lab).Delete)
}

func isSet(flag *bool) bool { return flag != nil && *flag }

func valueOr[T any](flag *T, fallback T) T {
	if flag == nil {
		return fallback
	}
	return *flag
}
