package problem

// Images: registries, builds from source, the OCI layout, loading into nodes.
var (
	RegistryUnreachable = Kind{
		ID: "LAB-REGISTRY-UNREACHABLE", Layer: LayerBundle, Number: 0,
		Title: "an image registry cannot be reached",
		Advice: []string{
			"Check the network and the proxy settings (HTTPS_PROXY, NO_PROXY).",
			"If you have a bundle on disk, set SM_BUNDLE to it.",
			"To build the images from Go modules instead, " +
				"run `mage sm:bundle -from=source -to=DIR` and set SM_BUNDLE=DIR.",
		},
	}
	ImageMissing = Kind{
		ID: "LAB-IMAGE-MISSING", Layer: LayerBundle, Number: 1,
		Title:  "the bundle does not contain an image that the lab needs",
		Advice: []string{"Make the bundle again with this version of the lab: `mage sm:bundle -to=DIR`."},
	}
	BundleCorrupt = Kind{
		ID: "LAB-BUNDLE-CORRUPT", Layer: LayerBundle, Number: 2,
		Title:  "the bundle on disk is damaged or incomplete",
		Advice: []string{"Delete the bundle and make it again: `mage sm:bundle -to=DIR`."},
	}
	ImageLoadFailed = Kind{
		ID: "LAB-IMAGE-LOAD", Layer: LayerBundle, Number: 3,
		Title: "an image could not be loaded into a node or into Docker",
		Advice: []string{
			"Check that the disk of the Docker host is not full (`docker system df`), then run the target again.",
		},
	}
	BuildFailed = Kind{
		ID: "LAB-BUILD-FAILED", Layer: LayerBundle, Number: 4,
		Title: "a program or an image could not be built from source",
		Advice: []string{
			"Read the build's output above and fix the cause, then run the target again: " +
				"it keeps what is already built.",
		},
	}
	ManifestUnavailable = Kind{
		ID: "LAB-MANIFEST-UNAVAILABLE", Layer: LayerBundle, Number: 5,
		Title: "the Go module with a pinned manifest or chart cannot be downloaded or read",
		Advice: []string{
			"Check that the Go module proxy can be reached (`go env GOPROXY GOFLAGS`), then run `go mod download`.",
		},
	}
	RegistryLimited = Kind{
		ID: "LAB-REGISTRY-LIMITED", Layer: LayerBundle, Number: 6,
		Title:  "an image registry refuses further pulls because a rate limit is reached",
		Advice: []string{"Log in with `docker login`, or wait: Docker Hub counts the pulls of six hours."},
	}
	NotABundle = Kind{
		ID: "LAB-NOT-A-BUNDLE", Layer: LayerBundle, Number: 7,
		Title:  "the given path is not a bundle",
		Advice: []string{"Make a bundle with `mage sm:bundle -to=DIR`, and set SM_BUNDLE=DIR."},
	}
	BundleUnfinished = Kind{
		ID: "LAB-BUNDLE-UNFINISHED", Layer: LayerBundle, Number: 2,
		Title:  "the bundle on disk is not finished",
		Advice: []string{"Run the interrupted `mage sm:bundle` again: it continues where it stopped."},
	}
	RegistryDenied = Kind{
		ID: "LAB-REGISTRY-DENIED", Layer: LayerBundle, Number: 8,
		Title:  "an image registry does not allow this user to pull an image",
		Advice: []string{"Log in to the registry with `docker login`. The lab uses the credentials of the Docker CLI."},
	}
	ImageUnknown = Kind{
		ID: "LAB-IMAGE-UNKNOWN", Layer: LayerBundle, Number: 1,
		Title:  "an image registry does not have an image, or does not have it for this platform",
		Advice: []string{"Check the image reference: its spelling, its tag and its digest."},
	}
	DigestMismatch = Kind{
		ID: "LAB-DIGEST-MISMATCH", Layer: LayerBundle, Number: 9,
		Title: "the content of an image does not match its digest",
		Advice: []string{
			"Do not use the image. Check which registry mirror or proxy served it, then run the target again.",
		},
	}
)

func bundleKinds() []Kind {
	return []Kind{
		RegistryUnreachable, ImageMissing, BundleCorrupt, ImageLoadFailed, BuildFailed, ManifestUnavailable,
		RegistryLimited,
		NotABundle, BundleUnfinished, RegistryDenied, ImageUnknown, DigestMismatch,
	}
}
