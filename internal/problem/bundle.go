package problem

// Images: registries, builds from source, the OCI layout, loading into nodes.
var (
	RegistryUnreachable = LayerBundle.kind("LAB-REGISTRY-UNREACHABLE", 0, "an image registry cannot be reached",
		"Check the network and the proxy settings (HTTPS_PROXY, NO_PROXY).",
		"If you have a bundle on disk, set SM_BUNDLE to it.",
		"To build the images from Go modules instead, run `mage sm:bundle -from=source -to=DIR` and set SM_BUNDLE=DIR.")
	ImageMissing = LayerBundle.kind("LAB-IMAGE-MISSING", 1, "the bundle does not contain an image that the lab needs",
		"Make the bundle again with this version of the lab: `mage sm:bundle -to=DIR`.")
	BundleCorrupt = LayerBundle.kind("LAB-BUNDLE-CORRUPT", 2, "the bundle on disk is damaged or incomplete",
		"Delete the bundle and make it again: `mage sm:bundle -to=DIR`.")
	ImageLoadFailed = LayerBundle.kind("LAB-IMAGE-LOAD", 3, "an image could not be loaded into a node or into Docker",
		"Check that the disk of the Docker host is not full (`docker system df`), then run the target again.")
	BuildFailed = LayerBundle.kind("LAB-BUILD-FAILED", 4, "a program or an image could not be built from source",
		"Read the build's output above and fix the cause, then run the target again: it keeps what is already built.")
	ManifestUnavailable = LayerBundle.kind("LAB-MANIFEST-UNAVAILABLE", 5,
		"the Go module with a pinned manifest or chart cannot be downloaded or read",
		"Check that the Go module proxy can be reached (`go env GOPROXY GOFLAGS`), then run `go mod download`.")
	RegistryLimited = LayerBundle.kind("LAB-REGISTRY-LIMITED", 6,
		"an image registry refuses further pulls because a rate limit is reached",
		"Log in with `docker login`, or wait: Docker Hub counts the pulls of six hours.")
	NotABundle = LayerBundle.kind("LAB-NOT-A-BUNDLE", 7, "the given path is not a bundle",
		"Make a bundle with `mage sm:bundle -to=DIR`, and set SM_BUNDLE=DIR.")
	BundleUnfinished = LayerBundle.kind("LAB-BUNDLE-UNFINISHED", 2, "the bundle on disk is not finished",
		"Run the interrupted `mage sm:bundle` again: it continues where it stopped.")
	RegistryDenied = LayerBundle.kind("LAB-REGISTRY-DENIED", 8,
		"an image registry does not allow this user to pull an image",
		"Log in to the registry with `docker login`. The lab uses the credentials of the Docker CLI.")
	ImageUnknown = LayerBundle.kind("LAB-IMAGE-UNKNOWN", 1,
		"an image registry does not have an image, or does not have it for this platform",
		"Check the image reference: its spelling, its tag and its digest.")
	DigestMismatch = LayerBundle.kind("LAB-DIGEST-MISMATCH", 9, "the content of an image does not match its digest",
		"Do not use the image. Check which registry mirror or proxy served it, then run the target again.")
)

func bundleKinds() []Kind {
	return []Kind{
		RegistryUnreachable, ImageMissing, BundleCorrupt, ImageLoadFailed, BuildFailed, ManifestUnavailable,
		RegistryLimited,
		NotABundle, BundleUnfinished, RegistryDenied, ImageUnknown, DigestMismatch,
	}
}
