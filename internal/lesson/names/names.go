// Package names holds what the lab's own objects are called and which images they run. The YAML in specs writes the
// same names out; a test of package specs compares them.
package names

// The two applications, the Gateway that leads to them, and the waypoint.
const (
	// AppA calls, AppB is called. Each names a Service, a Deployment and a ServiceAccount.
	AppA = "appa"
	AppB = "appb"
	// AppPort is the port of both Services, and PodPort that of their containers.
	AppPort = 8000
	PodPort = 8080
	// Host is the host name of the HTTPRoute. LocalHost is a second one: browsers resolve it to their own host.
	Host      = "appb.opssec.in"
	LocalHost = "appb.localhost"
	// Gateway and Waypoint name the two Gateway objects.
	Gateway  = "gateway"
	Waypoint = "appb-waypoint"
	// GatewayAccount is the Gateway's Deployment, Service and ServiceAccount: istiod calls them <gateway>-<class>.
	GatewayAccount = "gateway-istio"
	// GatewayPort is the port of the Gateway's listener.
	GatewayPort = 80
)

// Istio is the namespace of istiod, istio-cni, ztunnel and the telemetry add-ons.
const Istio = "istio-system"

// The objects of the lessons of sm:lab.
const (
	// Delay is the VirtualService of sm:fault.
	Delay = "appb-delay"
	// GetOnly is the AuthorizationPolicy of sm:authz, which the waypoint enforces.
	GetOnly = "appb-get-only"
	// OnlyViaWaypoint is the AuthorizationPolicy of sm:authz -strict, which ztunnel enforces.
	OnlyViaWaypoint = "appb-only-via-waypoint"
)

// The images of the applications' pods.
const (
	HttpbinImage = "docker.io/mccutchen/go-httpbin:v2.26.0"
	FortioImage  = "docker.io/fortio/fortio:1.75.3"
)

// Principal is the identity of a ServiceAccount as Istio's policies write it, without spiffe://.
func Principal(trustDomain, namespace, serviceAccount string) string {
	return trustDomain + "/ns/" + namespace + "/sa/" + serviceAccount
}
