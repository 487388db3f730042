package targets

import (
	"context"

	"ambientlab/internal/lab"
)

//revive:disable:line-length-limit `mage -h` reads a comment per flag and the line of variables

// Bundle puts every image of the lab into one OCI layout on disk, so that a lab installs with the network unplugged.
// Variables: SM_NODE_IMAGE, SM_REGISTRY_MIRROR, SM_REGISTRY_CA, SM_ADDONS, SM_METALLB, SM_ISTIO_VALUES, SM_MANIFESTS, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE.
func Bundle(ctx context.Context,
	from *string, // registry (pull the images) or source (build them from Go modules and Debian packages, on Linux as root)
	to *string, // folder to write; images that it already holds are not fetched again
) error {
	return lab.Run(ctx, "bundle", lab.BundleCreate(valueOr(from, "registry"), valueOr(to, "")))
}

// BundleShow lists what a bundle holds: references, digests, sizes, and which images are substitutes.
// Variables: SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE.
func BundleShow(ctx context.Context, path string) error {
	return lab.Run(ctx, "bundleShow", lab.BundleShow(path))
}

// BundleVerify computes the digest of every blob of a bundle and names the first that is wrong.
// Variables: SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE.
func BundleVerify(ctx context.Context, path string) error {
	return lab.Run(ctx, "bundleVerify", lab.BundleVerify(path))
}
