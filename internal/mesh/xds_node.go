package mesh

import (
	"encoding/json"
	"fmt"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
	corev1 "k8s.io/api/core/v1"
)

const proxyContainer = "istio-proxy"

// nodeOf is how a proxy names itself to istiod. The agent in its container makes that of the container's arguments and
// environment, which istiod itself wrote into the pod (istio.io/istio, pkg/bootstrap/config.go and pkg/model/node.go):
// ISTIO_META_X becomes the metadata X.
func nodeOf(pod *corev1.Pod) (*core.Node, error) {
	var container *corev1.Container
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == proxyContainer {
			container = &pod.Spec.Containers[i]
		}
	}
	if container == nil {
		return nil, fmt.Errorf("it has no container %s", proxyContainer)
	}
	kind := "sidecar"
	if len(container.Args) > 1 && container.Args[0] == "proxy" {
		kind = container.Args[1]
	}
	fields := map[string]any{
		"NAME": pod.Name, "NAMESPACE": pod.Namespace, "SERVICE_ACCOUNT": pod.Spec.ServiceAccountName,
		"NODE_NAME":    pod.Spec.NodeName,
		"INSTANCE_IPS": pod.Status.PodIP, "LABELS": anyMap(pod.Labels), "ANNOTATIONS": anyMap(pod.Annotations),
	}
	// istiod sends an agent what the agent's version understands.
	if _, tag, found := strings.Cut(container.Image[strings.LastIndexByte(container.Image, '/')+1:], ":"); found {
		fields["ISTIO_VERSION"], _, _ = strings.Cut(tag, "-")
	}
	cluster := ""
	for _, variable := range container.Env {
		if name, found := strings.CutPrefix(variable.Name, "ISTIO_META_"); found && variable.ValueFrom == nil {
			fields[name] = variable.Value
		}
		if variable.Name == "PROXY_CONFIG" {
			settings := map[string]any{}
			if err := json.Unmarshal([]byte(variable.Value), &settings); err != nil {
				return nil, fmt.Errorf("reading its PROXY_CONFIG: %w", err)
			}
			fields["PROXY_CONFIG"] = settings
		}
		if variable.Name == "ISTIO_META_WORKLOAD_NAME" {
			cluster = variable.Value + "." + pod.Namespace
		}
	}
	metadata, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, err
	}
	return &core.Node{
		Id: fmt.Sprintf("%s~%s~%s.%s~%s.svc.cluster.local", kind, pod.Status.PodIP, pod.Name, pod.Namespace,
			pod.Namespace),
		Cluster:  cluster,
		Metadata: metadata,
	}, nil
}

func anyMap(of map[string]string) map[string]any {
	all := make(map[string]any, len(of))
	for key, value := range of {
		all[key] = value
	}
	return all
}
