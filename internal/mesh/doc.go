// Package mesh looks into Istio: what a proxy's configuration holds, whether what was applied has arrived there, and if
// not, why not. It reaches proxies through the API server's port-forward, so it works from wherever the API server can
// be reached.
//
// "Arrived" is asked of the proxies themselves. The API server accepting an object, and even Istio's status conditions,
// say nothing about the proxy: a waypoint that is not ready fails open, with both its conditions True.
package mesh
