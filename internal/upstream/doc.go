// Package upstream reads third-party manifests and charts: Istio's charts and add-ons, the Gateway API's CRDs, MetalLB.
// They are not copied into this repository and not fetched from a URL: each comes from the Go module that its project
// publishes, at the version that go.mod pins and with the contents that go.sum lists.
package upstream
