//go:build pins

package upstream

// These imports are compiled into nothing. They make go.mod's requirements honest:
// the folders of these modules hold manifests that this package reads, and without
// an import `go mod tidy` would drop the pins.
import (
	_ "go.universe.tf/metallb/api/v1beta1"
	_ "sigs.k8s.io/gateway-api/apis/v1"
)
