package targets

import (
	"context"

	"ambientlab/internal/lab"
)

// Bundle puts every image of the lab into one OCI layout on disk, so that a lab installs with the network unplugged.
func Bundle(ctx context.Context,
	from *string, // registry (pull the images) or source (build them from Go modules and Debian packages, on Linux as root)
	to *string, // folder to write; what is there already is kept and not fetched again
) error {
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error {
		return l.BundleCreate(ctx, valueOr(from, "registry"), valueOr(to, ""))
	})
}

// BundleShow lists what a bundle holds: references, digests, sizes, and which images are substitutes.
func BundleShow(ctx context.Context, path string) error {
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error { return l.BundleShow(ctx, path) })
}

// BundleVerify rehashes every blob of a bundle and names the first that is not what it should be.
func BundleVerify(ctx context.Context, path string) error {
	return lab.Run(ctx, func(l *lab.Lab, ctx context.Context) error { return l.BundleVerify(ctx, path) })
}
