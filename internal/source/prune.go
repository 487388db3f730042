package source

import (
	"os"
	"path/filepath"
	"time"
)

// unusedFor is how long a program stays in the cache after it was last asked for. A program is up to 100 MB, and is
// built again for every new version of Go or of a module.
const unusedFor = 30 * 24 * time.Hour

// touch records that a built program was asked for.
func touch(path string) {
	now := time.Now()
	// without permission for this, the program is built again after a month
	_ = os.Chtimes(filepath.Dir(path), now, now)
}

// prune removes the program's builds from other sources that were not asked for in a long time. It does not affect a
// process that runs from one of them. The caller holds the build lock.
func prune(path string) {
	builds, err := filepath.Glob(filepath.Join(filepath.Dir(filepath.Dir(path)), "*"))
	if err != nil {
		return
	}
	for _, build := range builds {
		info, err := os.Stat(build)
		if err != nil || !info.IsDir() || build == filepath.Dir(path) || time.Since(info.ModTime()) < unusedFor {
			continue
		}
		_ = os.RemoveAll(build)
	}
}
