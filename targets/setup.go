// Package targets holds the Mage targets, one exported function each. A target reads its flags, calls internal/lab
// and does nothing else.
package targets

import (
	"context"

	"ambientlab/internal/lab"
)

//revive:disable:line-length-limit `mage -h` reads a comment per flag and the line of variables

// Install creates or reuses the cluster and installs the mesh: MetalLB, Gateway API, ambient Istio, telemetry.
// INSTALL_KIND=n takes the cluster of the current kubeconfig context instead of a kind cluster of the lab's own.
// Running it again repairs what is not ready and changes nothing else.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_WORKERS, SM_NODE_IMAGE, SM_KIND_CONFIG, SM_BUNDLE, SM_REGISTRY_MIRROR, SM_REGISTRY_CA, SM_ADDONS, SM_METALLB, SM_ISTIO_VALUES, SM_MANIFESTS, SM_PACKETS, SM_ZTUNNEL, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Install(ctx context.Context) error {
	return lab.Run(ctx, "install", lab.Install)
}

// Lab runs everything in order: install, apps, waypoint, fault, authz, then verify and status.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_WORKERS, SM_NODE_IMAGE, SM_KIND_CONFIG, SM_BUNDLE, SM_REGISTRY_MIRROR, SM_REGISTRY_CA, SM_ADDONS, SM_METALLB, SM_ISTIO_VALUES, SM_MANIFESTS, SM_PACKETS, SM_ZTUNNEL, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Lab(ctx context.Context) error {
	return lab.Run(ctx, "lab", lab.All)
}

// Delete removes the cluster that the lab created or, on an existing cluster, the lab's own objects and nothing else.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_ADDONS, SM_METALLB, SM_MANIFESTS, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Delete(ctx context.Context) error {
	return lab.Run(ctx, "delete", lab.Delete)
}

func isSet(flag *bool) bool { return flag != nil && *flag }

func valueOr[T any](flag *T, fallback T) T {
	if flag == nil {
		return fallback
	}
	return *flag
}
