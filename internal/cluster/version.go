package cluster

import (
	"k8s.io/apimachinery/pkg/util/version"

	"ambientlab/internal/problem"
)

// What Istio 1.31 supports: Kubernetes 1.32 to 1.36 (https://istio.io/latest/docs/releases/supported-releases/).
const (
	oldestMinor = 32
	newestMinor = 36
)

// CheckVersion refuses a Kubernetes version outside what Istio supports. what names where the version was seen. A
// vendor's suffix, such as -gke.1002000, does not matter.
func CheckVersion(what, gitVersion string) error {
	v, err := version.ParseSemantic(gitVersion)
	if err != nil {
		return problem.New(problem.ClusterVersion, err, "%s: Kubernetes %q is no version", what, gitVersion)
	}
	if v.Major() != 1 || v.Minor() < oldestMinor || v.Minor() > newestMinor {
		return problem.New(
			problem.ClusterVersion, nil, "%s: Kubernetes %s; the lab needs 1.%d to 1.%d", what, gitVersion, oldestMinor,
			newestMinor,
		)
	}
	return nil
}
