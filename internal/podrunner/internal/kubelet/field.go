package kubelet

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// field gives a field of a pod by its path, as the downward API names it.
func field(pod *corev1.Pod, path string) (string, error) {
	if name, key, subscripted := subscript(path); subscripted {
		switch name {
		case "metadata.labels":
			return pod.Labels[key], nil
		case "metadata.annotations":
			return pod.Annotations[key], nil
		}
		return "", fmt.Errorf("field %q does not take a key", path)
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return pairs(pod.Labels), nil
	case "metadata.annotations":
		return pairs(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return pod.Status.HostIP, nil
	case "status.podIP", "status.podIPs":
		return pod.Status.PodIP, nil
	}
	return "", fmt.Errorf("unknown field %q", path)
}

// subscript splits a path such as metadata.labels['app'].
func subscript(path string) (name, key string, ok bool) {
	name, rest, found := strings.Cut(path, "['")
	if !found {
		return path, "", false
	}
	key, found = strings.CutSuffix(rest, "']")
	return name, key, found
}

// pairs writes a map as the downward API does: one key="value" a line, sorted.
func pairs(m map[string]string) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, key+"="+strconv.Quote(m[key]))
	}
	return strings.Join(lines, "\n")
}

// resourceField gives a request or limit of a container in units of the divisor, rounded up. A limit that is not set is
// what the node has.
func resourceField(
	container *corev1.Container,
	from *corev1.ResourceFieldSelector,
	node corev1.ResourceList,
) (string, error) {
	kind, name, _ := strings.Cut(from.Resource, ".")
	var found resource.Quantity
	var set bool
	switch kind {
	case "limits":
		if found, set = container.Resources.Limits[corev1.ResourceName(name)]; !set {
			found = node[corev1.ResourceName(name)]
		}
	case "requests":
		if found, set = container.Resources.Requests[corev1.ResourceName(name)]; !set {
			found = container.Resources.Limits[corev1.ResourceName(name)]
		}
	default:
		return "", fmt.Errorf("unknown resource %q", from.Resource)
	}
	divisor := from.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	value, by := found.MilliValue(), divisor.MilliValue()
	if name != string(corev1.ResourceCPU) { // memory in thousandths does not fit into 64 bits
		value, by = found.Value(), divisor.Value()
	}
	return strconv.FormatInt((value+by-1)/by, 10), nil
}
