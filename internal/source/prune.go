package source

import (
	"os"
	"path/filepath"
	"time"
)

// unusedFor is how long a program that nobody asks for stays in the cache. Each is up to 100 MB, and every new version of
// Go or of a module builds it anew.
const unusedFor = 30 * 24 * time.Hour

// touch notes that a built program was asked for.
func touch(path string) {
	now := time.Now()
	_ = os.Chtimes(filepath.Dir(path), now, now) // where that is not allowed, it is built again after a month
}

// prune removes the program's builds from other sources that nobody has asked for in a long time. A process that still
// runs from one is not disturbed; whoever would start it again asks for today's. The caller holds the build lock.
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
