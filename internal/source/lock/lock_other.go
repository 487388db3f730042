//go:build !unix

package lock

import (
	"context"
	"fmt"
	"runtime"
)

// Take refuses: working beside another process without a lock could hand out something half-written.
func Take(context.Context, string, func()) (func(), error) {
	return nil, fmt.Errorf("building from source is not supported on %s", runtime.GOOS)
}
