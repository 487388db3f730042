package apply

import corev1 "k8s.io/api/core/v1"

// namespaceState wants a namespace that is not on its way out.
func namespaceState(n *corev1.Namespace) state {
	if n.Status.Phase == corev1.NamespaceTerminating {
		return waiting("it is being deleted")
	}
	return state{done: true}
}
