package apply

import corev1 "k8s.io/api/core/v1"

// serviceState wants a load balancer's address. Other Services are ready at once: that
// they have endpoints is their pods' readiness.
func serviceState(s *corev1.Service) state {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return state{done: true}
	}
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		if ingress.IP != "" || ingress.Hostname != "" {
			return state{done: true}
		}
	}
	return waiting("no load balancer has given it an address")
}
