//go:build !unix

package bundle

import "os"

// lockFile does nothing where there is no flock: blobs are put in place whole under
// the name of their content, so two writers in one folder cost work, not a bundle.
func lockFile(*os.File) error { return nil }

// shareFile does nothing either: an open bundle may lose blobs to a new one there.
func shareFile(*os.File) error { return nil }
