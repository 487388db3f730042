package kubelet

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

// objects are ConfigMaps and Secrets by name.
type objects map[string]map[string]string

func (o objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	data, has := o[name]
	if !has {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &corev1.ConfigMap{Data: data}, nil
}

func (o objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	data, has := o[name]
	if !has {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	secret := &corev1.Secret{Data: map[string][]byte{}}
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	return secret, nil
}

func samplePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "ns", UID: "u-1", Labels: map[string]string{"b": "2", "a": "1"},
			Annotations: map[string]string{"note": `say "x"`},
		},
		Spec:   corev1.PodSpec{NodeName: "n", ServiceAccountName: "sa", Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{PodIP: "10.244.0.2", HostIP: "198.51.100.1"},
	}
}

func TestEnvironment(t *testing.T) {
	ref := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	limit := func(name, divisor string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{
			ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: name, Divisor: resource.MustParse(divisor)},
		}
	}
	container := &corev1.Container{
		Name: "c",
		Resources: corev1.ResourceRequirements{
			Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")},
		},
		EnvFrom: []corev1.EnvFromSource{
			{
				Prefix: "P_",
				ConfigMapRef: &corev1.ConfigMapEnvSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "config"},
				},
			},
			{
				SecretRef: &corev1.SecretEnvSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "none"},
					Optional:             ptr.To(true),
				},
			},
		},
		Env: []corev1.EnvVar{
			{Name: "NAME", ValueFrom: ref("metadata.name")},
			{Name: "IP", ValueFrom: ref("status.podIP")},
			{Name: "LABEL", ValueFrom: ref("metadata.labels['a']")},
			{Name: "BOTH", Value: "$(NAME)/$(LATER)/$(P_key)"},
			{Name: "LATER", Value: "x"},
			{Name: "PATH", Value: "/own"},
			{Name: "CPU", ValueFrom: limit("limits.cpu", "1")},
			{Name: "ASKED", ValueFrom: limit("requests.cpu", "1")},
			{Name: "MEMORY", ValueFrom: limit("limits.memory", "1Mi")},
			{
				Name: "ABSENT",
				ValueFrom: &corev1.EnvVarSource{
					ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
						Key:                  "nothing",
						LocalObjectReference: corev1.LocalObjectReference{Name: "config"},
						Optional:             ptr.To(true),
					},
				},
			},
		},
	}
	node := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}
	env, err := environment(
		t.Context(),
		samplePod(),
		container,
		[]string{"PATH=/bin", "IMAGE=1"},
		[]string{"S=2"},
		node,
		objects{"config": {"key": "value"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(list(env), " ")
	want := "ASKED=2 BOTH=p/$(LATER)/value CPU=2 HOSTNAME=p IMAGE=1 IP=10.244.0.2 LABEL=1 LATER=x MEMORY=1024 NAME=p " +
		"PATH=/own P_key=value S=2"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for what, env := range map[string]corev1.EnvVar{
		"a ConfigMap that does not exist": {
			Name: "X",
			ValueFrom: &corev1.EnvVarSource{
				ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
					Key:                  "k",
					LocalObjectReference: corev1.LocalObjectReference{Name: "none"},
				},
			},
		},
		"a key that does not exist": {
			Name: "X",
			ValueFrom: &corev1.EnvVarSource{
				SecretKeyRef: &corev1.SecretKeySelector{
					Key:                  "k",
					LocalObjectReference: corev1.LocalObjectReference{Name: "config"},
				},
			},
		},
		"a field that does not exist": {Name: "X", ValueFrom: ref("spec.nothing")},
	} {
		if _, err := environment(t.Context(), samplePod(), &corev1.Container{Env: []corev1.EnvVar{env}}, nil, nil, node,
			objects{"config": {}}); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestServiceEnvironment(t *testing.T) {
	service := func(namespace, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: ports},
		}
	}
	all := []*corev1.Service{
		service(
			"default",
			"kubernetes",
			"10.96.0.1",
			corev1.ServicePort{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP},
		),
		service("ns", "app-b", "10.96.0.9", corev1.ServicePort{Name: "http", Port: 8000}),
		service("ns", "headless", corev1.ClusterIPNone, corev1.ServicePort{Port: 1}),
		service("other", "x", "10.96.0.8", corev1.ServicePort{Port: 1}),
	}
	pod := samplePod()
	env := serviceEnvironment(pod, all)
	for _, want := range []string{
		"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT_HTTPS=443",
		"APP_B_SERVICE_PORT=8000", "APP_B_PORT_8000_TCP_ADDR=10.96.0.9",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing in %v", want, env)
		}
	}
	if text := strings.Join(env, " "); strings.Contains(text, "HEADLESS") || strings.Contains(text, "X_SERVICE") {
		t.Errorf("too much: %s", text)
	}
	pod.Spec.EnableServiceLinks = ptr.To(false)
	if text := strings.Join(serviceEnvironment(pod, all), " "); strings.Contains(text, "APP_B") ||
		!strings.Contains(text, "KUBERNETES_SERVICE_HOST") {
		t.Errorf("without links: %s", text)
	}
}
