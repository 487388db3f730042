package outbound

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"ambientlab/nodeproxy/internal/workload"
)

// tunnelHeaders returns headers for the telemetry of the next hop: baggage names the client's workload, forwarded (RFC
// 7239) its address and the service that it connects to. Peers must not base decisions on them.
func tunnelHeaders(src netip.AddrPort, w *workload.Workload, svc *workload.Service) http.Header {
	forwarded := fmt.Sprintf("for=%q", src.String())
	if svc != nil {
		forwarded += ";host=" + svc.Hostname
	}
	return http.Header{"Baggage": {baggage(w)}, "Forwarded": {forwarded}}
}

func baggage(w *workload.Workload) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	add("k8s.cluster.name", w.ClusterID)
	add("k8s.namespace.name", w.Namespace)
	add("k8s."+w.WorkloadType+".name", w.WorkloadName)
	add("service.name", w.CanonicalName)
	add("service.version", w.CanonicalRevision)
	add("cloud.region", w.Region)
	add("cloud.availability_zone", w.Zone)
	return strings.Join(parts, ",")
}
