//go:build !unix

package source

import (
	"context"
	"fmt"
	"runtime"
)

// lock refuses: building beside another process without a lock could hand out a half-written program.
func lock(context.Context, string, func()) (func(), error) {
	return nil, fmt.Errorf("building from source is not supported on %s", runtime.GOOS)
}
