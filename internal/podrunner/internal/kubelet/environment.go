package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// source reads the objects that a pod refers to.
type source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// environment is the environment of a container: the image's, that of Services, and the pod's own, the later over the
// earlier.
func environment(
	ctx context.Context,
	pod *corev1.Pod,
	container *corev1.Container,
	image, services []string,
	node corev1.ResourceList,
	from source,
) (map[string]string, error) {
	env := map[string]string{"HOSTNAME": pod.Name}
	for _, list := range [][]string{image, services} {
		for _, variable := range list {
			name, value, _ := strings.Cut(variable, "=")
			env[name] = value
		}
	}
	for _, set := range container.EnvFrom {
		found, err := environmentFrom(ctx, pod.Namespace, set, from)
		if err != nil {
			return nil, err
		}
		maps.Copy(env, found)
	}
	lookup := func(name string) (string, bool) {
		value, known := env[name]
		return value, known
	}
	for _, variable := range container.Env {
		if variable.ValueFrom == nil {
			env[variable.Name] = expand(variable.Value, lookup)
			continue
		}
		value, set, err := valueFrom(ctx, pod, container, variable.ValueFrom, node, from)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", variable.Name, err)
		}
		if set {
			env[variable.Name] = value
		}
	}
	return env, nil
}

// environmentFrom gives the variables of a whole ConfigMap or Secret.
func environmentFrom(
	ctx context.Context,
	namespace string,
	set corev1.EnvFromSource,
	from source,
) (map[string]string, error) {
	found := map[string]string{}
	switch {
	case set.ConfigMapRef != nil:
		object, err := from.ConfigMap(ctx, namespace, set.ConfigMapRef.Name)
		if err != nil {
			return nil, missing(err, set.ConfigMapRef.Optional)
		}
		for key, value := range object.Data {
			found[set.Prefix+key] = value
		}
	case set.SecretRef != nil:
		object, err := from.Secret(ctx, namespace, set.SecretRef.Name)
		if err != nil {
			return nil, missing(err, set.SecretRef.Optional)
		}
		for key, value := range object.Data {
			found[set.Prefix+key] = string(value)
		}
	}
	return found, nil
}

// missing passes over an object that is not there and need not be.
func missing(err error, optional *bool) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// valueFrom gives a variable's value; set is false for one that need not be there and is not.
func valueFrom(
	ctx context.Context,
	pod *corev1.Pod,
	container *corev1.Container,
	of *corev1.EnvVarSource,
	node corev1.ResourceList,
	from source,
) (value string, set bool, err error) {
	optional := func(is *bool) bool { return is != nil && *is }
	switch {
	case of.FieldRef != nil:
		value, err = field(pod, of.FieldRef.FieldPath)
		return value, true, err
	case of.ResourceFieldRef != nil:
		value, err = resourceField(container, of.ResourceFieldRef, node)
		return value, true, err
	case of.ConfigMapKeyRef != nil:
		ref := of.ConfigMapKeyRef
		object, err := from.ConfigMap(ctx, pod.Namespace, ref.Name)
		if err != nil {
			return "", false, missing(err, ref.Optional)
		}
		value, set = object.Data[ref.Key]
		if !set && !optional(ref.Optional) {
			err = fmt.Errorf("ConfigMap %s/%s has no key %s", pod.Namespace, ref.Name, ref.Key)
		}
		return value, set, err
	case of.SecretKeyRef != nil:
		ref := of.SecretKeyRef
		object, err := from.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			return "", false, missing(err, ref.Optional)
		}
		raw, set := object.Data[ref.Key]
		if !set && !optional(ref.Optional) {
			err = fmt.Errorf("Secret %s/%s has no key %s", pod.Namespace, ref.Name, ref.Key)
		}
		return string(raw), set, err
	}
	return "", false, fmt.Errorf("this source of a value is not supported")
}

// serviceEnvironment describes Services by variables, as a kubelet does: the API server's always, those of the pod's
// namespace unless the pod does not want them.
func serviceEnvironment(pod *corev1.Pod, services []*corev1.Service) []string {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	var env []string
	for _, service := range services {
		apiServer := service.Namespace == corev1.NamespaceDefault && service.Name == "kubernetes"
		if !apiServer && (!links || service.Namespace != pod.Namespace) {
			continue
		}
		ip := service.Spec.ClusterIP
		if ip == "" || ip == corev1.ClusterIPNone || len(service.Spec.Ports) == 0 {
			continue
		}
		name := strings.ToUpper(strings.ReplaceAll(service.Name, "-", "_"))
		first := strconv.Itoa(int(service.Spec.Ports[0].Port))
		env = append(
			env,
			name+"_SERVICE_HOST="+ip,
			name+"_SERVICE_PORT="+first,
			name+"_PORT="+address(service.Spec.Ports[0], ip),
		)
		for _, port := range service.Spec.Ports {
			number := strconv.Itoa(int(port.Port))
			if port.Name != "" {
				env = append(
					env,
					name+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(port.Name, "-", "_"))+"="+number,
				)
			}
			protocol := cmp.Or(string(port.Protocol), "TCP")
			prefix := name + "_PORT_" + number + "_" + protocol
			env = append(
				env,
				prefix+"="+address(port, ip),
				prefix+"_PROTO="+strings.ToLower(protocol),
				prefix+"_PORT="+number,
				prefix+"_ADDR="+ip,
			)
		}
	}
	slices.Sort(env)
	return env
}

func address(port corev1.ServicePort, ip string) string {
	return fmt.Sprintf("%s://%s:%d", strings.ToLower(cmp.Or(string(port.Protocol), "TCP")), ip, port.Port)
}

// list writes an environment as a process takes it.
func list(env map[string]string) []string {
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	return out
}
