package targets

import (
	"context"

	"ambientlab/internal/lab"
)

// Bundle puts every image of the lab into one OCI layout on disk, so that a lab installs with the network unplugged.
// Variables: SM_PROVIDER, SM_NODE_IMAGE, SM_ADDONS, SM_METALLB, SM_ISTIO_VALUES, SM_MANIFESTS, SM_TIMEOUT, SM_OUTPUT.
func Bundle(ctx context.Context,
	from *string, // registry (pull the images) or source (build them from Go modules and Debian packages, on Linux as root)
	to *string, // folder to write; what is there already is kept and not fetched again
) error {
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error {
		return l.BundleCreate(ctx, valueOr(from, "registry"), valueOr(to, ""))
	})
}

// BundleShow lists what a bundle holds: references, digests, sizes, and which images are substitutes.
// Variables: SM_OUTPUT.
func BundleShow(ctx context.Context, path string) error {
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error { return l.BundleShow(ctx, path) })
}

// BundleVerify rehashes every blob of a bundle and names the first that is not what it should be.
// Variables: SM_OUTPUT.
func BundleVerify(ctx context.Context, path string) error {
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error { return l.BundleVerify(ctx, path) })
}
