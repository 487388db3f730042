package lab

import (
	"fmt"
	"time"
)

// Names that the lessons, the README and the proofs share.
const (
	appA, appB      = "appa", "appb"
	host            = "appb.opssec.in"
	gatewayName     = "gateway"
	gatewayIdentity = "gateway-istio" // istiod names a Gateway's Deployment, Service and ServiceAccount <gateway>-<class>
	waypointName    = "appb-waypoint"
	istioNamespace  = "istio-system"

	getOnlyPolicy      = "appb-get-only"          // for the waypoint
	onlyWaypointPolicy = "appb-only-via-waypoint" // for ztunnel, with -strict

	httpbinImage = "docker.io/mccutchen/go-httpbin:v2.26.0"
	fortioImage  = "docker.io/fortio/fortio:1.75.3"
)

// principal is the identity of a ServiceAccount of the lab's namespace, as Istio's policies write it.
func (l *Lab) principal(serviceAccount string) string {
	return fmt.Sprintf("cluster.local/ns/%s/sa/%s", l.Settings.Namespace, serviceAccount)
}

// Deadlines of single steps. They are generous: a step that waits always says what for.
const (
	quick   = 2 * time.Minute
	patient = 10 * time.Minute
)
