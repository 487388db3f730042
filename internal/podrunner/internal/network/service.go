package network

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Service is one port of a Service: its address, and those of its endpoints.
type Service struct {
	Address   netip.AddrPort
	UDP       bool
	Endpoints []netip.AddrPort
}

// Services combines Services and their EndpointSlices, in an order that depends on nothing else. Ports without
// endpoints are left out.
func Services(
	services []*corev1.Service,
	slicesOf func(namespace, name string) []*discoveryv1.EndpointSlice,
) []Service {
	var all []Service
	for _, service := range services {
		ip, err := netip.ParseAddr(service.Spec.ClusterIP)
		if err != nil || !ip.Is4() {
			continue // headless, or of another family
		}
		of := slicesOf(service.Namespace, service.Name)
		for _, port := range service.Spec.Ports {
			endpoints := Endpoints(port.Name, of)
			if len(endpoints) == 0 {
				continue
			}
			all = append(all, Service{
				Address: netip.AddrPortFrom(
					ip,
					uint16(port.Port),
				), UDP: port.Protocol == corev1.ProtocolUDP, Endpoints: endpoints,
			})
		}
	}
	slices.SortFunc(all, func(a, b Service) int {
		if order := a.Address.Compare(b.Address); order != 0 || a.UDP == b.UDP {
			return order
		}
		if b.UDP {
			return -1
		}
		return 1
	})
	return all
}

// Endpoints gives the ready endpoints of a Service's port, by the port's name.
func Endpoints(port string, slicesOf []*discoveryv1.EndpointSlice) []netip.AddrPort {
	var found []netip.AddrPort
	for _, slice := range slicesOf {
		for _, candidate := range slice.Ports {
			if candidate.Port == nil || (candidate.Name != nil && *candidate.Name != port) ||
				(candidate.Name == nil && port != "") {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if ready := endpoint.Conditions.Ready; ready != nil && !*ready || len(endpoint.Addresses) == 0 {
					continue
				}
				if ip, err := netip.ParseAddr(endpoint.Addresses[0]); err == nil && ip.Is4() {
					found = append(found, netip.AddrPortFrom(ip, uint16(*candidate.Port)))
				}
			}
		}
	}
	slices.SortFunc(found, netip.AddrPort.Compare)
	return slices.Compact(found)
}

// Hosts writes the file /etc/hosts of a pod in a namespace: the names of Services, which a cluster's DNS would answer.
func Hosts(namespace, podName, podIP string, services []*corev1.Service) string {
	var lines []string
	for _, service := range services {
		if ip, err := netip.ParseAddr(service.Spec.ClusterIP); err != nil || !ip.Is4() {
			continue
		}
		qualified := service.Name + "." + service.Namespace
		names := []string{qualified + ".svc.cluster.local", qualified + ".svc", qualified}
		if service.Namespace == namespace {
			names = append(names, service.Name)
		}
		lines = append(lines, service.Spec.ClusterIP+"\t"+strings.Join(names, " "))
	}
	slices.Sort(lines)
	head := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	if podIP != "" {
		head += podIP + "\t" + podName + "\n"
	}
	return head + strings.Join(lines, "\n") + "\n"
}
