package admin

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"time"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/policy"
	"ambientlab/nodeproxy/internal/workload"
	"ambientlab/nodeproxy/internal/zds"
)

// Source holds the objects that a dump shows.
type Source struct {
	Version   string
	Workloads *workload.Store
	Policies  *policy.Store
	Certs     *identity.Store
	Pods      interface {
		Pods() (active, waiting []zds.Pod)
	}
}

// ServeHTTP writes the dump, with the field names that istioctl ztunnel-config reads.
func (s Source) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(s.dump())
}

type object = map[string]any

func (s Source) dump() object {
	workloads, services := s.Workloads.All()
	ws, svcs, ps, certs := []object{}, []object{}, []any{}, []object{}
	for _, w := range workloads {
		ws = append(ws, dumpWorkload(w))
	}
	for _, svc := range services {
		svcs = append(svcs, s.dumpService(svc))
	}
	for _, p := range s.Policies.All() {
		ps = append(ps, dumpPolicy(p.Raw()))
	}
	for _, c := range s.Certs.States() {
		certs = append(certs, dumpCert(c))
	}
	return object{
		"version":   object{"version": s.Version, "substitute": "ambientlab node proxy"},
		"workloads": ws, "services": svcs, "policies": ps, "certificates": certs, "workloadState": s.states(),
	}
}

func (s Source) states() object {
	out := object{}
	active, waiting := s.Pods.Pods()
	for state, list := range map[string][]zds.Pod{"Up": active, "Pending": waiting} {
		for _, p := range list {
			out[p.UID] = object{
				"state":       state,
				"connections": object{"inbound": []any{}, "outbound": []any{}},
				"info":        object{"name": p.Name, "namespace": p.Namespace, "serviceAccount": p.ServiceAccount},
			}
		}
	}
	return out
}

func dumpWorkload(w *workload.Workload) object {
	protocol, status := "TCP", "Healthy"
	if w.HBONE {
		protocol = "HBONE"
	}
	if !w.Healthy {
		status = "Unhealthy"
	}
	ips := []string{}
	for _, a := range w.Addresses {
		ips = append(ips, a.String())
	}
	o := object{
		"uid": w.UID, "workloadIps": ips, "protocol": protocol, "name": w.Name, "namespace": w.Namespace,
		"serviceAccount": w.ServiceAccount, "workloadName": w.WorkloadName, "workloadType": w.WorkloadType,
		"canonicalName": w.CanonicalName, "canonicalRevision": w.CanonicalRevision, "clusterId": w.ClusterID,
		"trustDomain": w.TrustDomain, "node": w.Node, "network": w.Network, "status": status, "hostname": w.Hostname,
		"capacity": w.Capacity, "authorizationPolicies": w.Policies,
		"locality": object{"region": w.Region, "zone": w.Zone, "subzone": w.Subzone},
	}
	if w.Waypoint != nil {
		o["waypoint"] = object{"destination": w.Waypoint.String()}
	}
	return o
}

func (s Source) dumpService(svc *workload.Service) object {
	vips := []string{}
	for _, v := range svc.VIPs {
		vips = append(vips, v.Network+"/"+v.Address.String())
	}
	endpoints := object{}
	for _, w := range s.Workloads.Endpoints(svc) {
		endpoints[w.UID] = object{"workloadUid": w.UID, "service": svc.Key(), "port": w.Services[svc.Key()]}
	}
	o := object{
		"name": svc.Name, "namespace": svc.Namespace, "hostname": svc.Hostname, "vips": vips,
		"ports": svc.Ports, "endpoints": endpoints, "subjectAltNames": svc.SANs,
	}
	if svc.Waypoint != nil {
		o["waypoint"] = object{"destination": svc.Waypoint.String()}
	}
	return o
}

func dumpCert(c identity.State) object {
	o := object{"identity": c.Identity.String(), "state": "Initializing"}
	if c.Certificate != nil {
		o["state"] = "Available"
		var chain []object
		for _, raw := range c.Certificate.TLS.Certificate {
			if cert, err := x509.ParseCertificate(raw); err == nil {
				chain = append(chain, dumpX509(cert))
			}
		}
		var roots []object
		for _, cert := range c.Certificate.RootCerts {
			roots = append(roots, dumpX509(cert))
		}
		o["certChain"], o["rootCerts"] = chain, roots
	}
	if c.Err != nil {
		o["state"] = fmt.Sprintf("Unavailable: %v", c.Err)
	}
	return o
}

func dumpX509(c *x509.Certificate) object {
	return object{
		"pem":          string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})),
		"serialNumber": c.SerialNumber.String(),
		"validFrom":    c.NotBefore.Format(time.RFC3339), "expirationTime": c.NotAfter.Format(time.RFC3339),
	}
}
