//go:build pins

package upstream

// These imports are not compiled into anything. This package reads manifests from the folders of these modules, and
// without an import `go mod tidy` would remove them from go.mod.
import (
	_ "go.universe.tf/metallb/api/v1beta1"
	_ "sigs.k8s.io/gateway-api/apis/v1"
)
