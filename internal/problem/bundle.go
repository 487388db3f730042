package problem

// Images: registries, builds from source, the OCI layout, loading into nodes.
var (
	RegistryUnreachable = Kind{
		ID: "LAB-REGISTRY-UNREACHABLE", Layer: LayerBundle, Number: 0,
		Title: "an image registry cannot be reached",
		Advice: []string{
			"Check the network and proxy settings (HTTPS_PROXY, NO_PROXY).",
			"Use a bundle that is already on disk: set SM_BUNDLE to it.",
			"Build the images from Go modules instead: see the README on source bundles.",
		},
	}
	ImageMissing = Kind{
		ID: "LAB-IMAGE-MISSING", Layer: LayerBundle, Number: 1,
		Title:  "an image that the lab needs is not in the bundle",
		Advice: []string{"Rebuild the bundle with this version of the lab."},
	}
	BundleCorrupt = Kind{
		ID: "LAB-BUNDLE-CORRUPT", Layer: LayerBundle, Number: 2,
		Title:  "the bundle on disk is damaged or incomplete",
		Advice: []string{"Delete the bundle and make it again."},
	}
	ImageLoadFailed = Kind{
		ID: "LAB-IMAGE-LOAD", Layer: LayerBundle, Number: 3,
		Title:  "an image could not be loaded into a node or into Docker",
		Advice: []string{"Check that the disk of the Docker host is not full (`docker system df`), then run the target again."},
	}
	BuildFailed = Kind{
		ID: "LAB-BUILD-FAILED", Layer: LayerBundle, Number: 4,
		Title:  "something could not be built from its source",
		Advice: []string{"Read the build's output above; run the target again once its cause is gone: what was built is kept."},
	}
	ManifestUnavailable = Kind{
		ID: "LAB-MANIFEST-UNAVAILABLE", Layer: LayerBundle, Number: 5,
		Title:  "a pinned third-party manifest or chart cannot be had",
		Advice: []string{"Run `go mod download` where the Go module proxy can be reached (GOPROXY, GOFLAGS=-mod=mod)."},
	}
	RegistryLimited = Kind{
		ID: "LAB-REGISTRY-LIMITED", Layer: LayerBundle, Number: 6,
		Title:  "an image registry refuses more pulls for now",
		Advice: []string{"Log in with `docker login`, or wait: Docker Hub counts pulls over six hours."},
	}
	NotABundle = Kind{
		ID: "LAB-NOT-A-BUNDLE", Layer: LayerBundle, Number: 7,
		Title:  "what should be a bundle is something else",
		Advice: []string{"Make a bundle with `mage sm:bundle -to=DIR`, and set SM_BUNDLE to that folder."},
	}
	BundleUnfinished = Kind{
		ID: "LAB-BUNDLE-UNFINISHED", Layer: LayerBundle, Number: 2,
		Title:  "the bundle on disk is not finished",
		Advice: []string{"Run the `mage sm:bundle` that was interrupted again: it goes on where it stopped."},
	}
	RegistryDenied = Kind{
		ID: "LAB-REGISTRY-DENIED", Layer: LayerBundle, Number: 8,
		Title:  "an image registry does not let this user pull",
		Advice: []string{"Log in to the registry with `docker login`; the lab uses the credentials of the Docker CLI."},
	}
	ImageUnknown = Kind{
		ID: "LAB-IMAGE-UNKNOWN", Layer: LayerBundle, Number: 1,
		Title:  "an image registry does not have an image, or not for this platform",
		Advice: []string{"Check the reference's spelling, its tag and its digest."},
	}
	DigestMismatch = Kind{
		ID: "LAB-DIGEST-MISMATCH", Layer: LayerBundle, Number: 9,
		Title: "an image is not the one that its digest demands",
		Advice: []string{
			"Do not use it. Check which registry mirror or proxy answered, then run the target again.",
		},
	}
)

func bundleKinds() []Kind {
	return []Kind{
		RegistryUnreachable, ImageMissing, BundleCorrupt, ImageLoadFailed, BuildFailed, ManifestUnavailable, RegistryLimited,
		NotABundle, BundleUnfinished, RegistryDenied, ImageUnknown, DigestMismatch,
	}
}
