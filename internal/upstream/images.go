package upstream

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// podSpecPath returns where a kind has the specification of its pods, or nil.
func podSpecPath(kind string) []string {
	switch kind {
	case "Pod":
		return []string{"spec"}
	case "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "ReplicationController":
		return []string{"spec", "template", "spec"}
	case "CronJob":
		return []string{"spec", "jobTemplate", "spec", "template", "spec"}
	default:
		return nil
	}
}

// eachContainer calls f with every container of obj's pods, init and ephemeral containers included. f may change it in
// place.
func eachContainer(obj *unstructured.Unstructured, f func(map[string]any)) {
	path := podSpecPath(obj.GetKind())
	if path == nil {
		return
	}
	spec, found, err := unstructured.NestedFieldNoCopy(obj.Object, path...)
	pod, ok := spec.(map[string]any)
	if err != nil || !found || !ok {
		return
	}
	for _, field := range []string{"initContainers", "containers", "ephemeralContainers"} {
		list, _ := pod[field].([]any)
		for _, c := range list {
			if c, ok := c.(map[string]any); ok {
				f(c)
			}
		}
	}
}

// Images returns every container image that the objects make a node pull, sorted, each once. That includes the proxy
// that istiod runs as gateway and waypoint: no object names it, but istiod's injector configuration says which it is.
func Images(objs []*unstructured.Unstructured) []string {
	refs := PodImages(objs)
	for _, obj := range objs {
		if image := proxyImage(obj); image != "" {
			refs = append(refs, image)
		}
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// PodImages returns the images of the objects' own pods, sorted, each once.
func PodImages(objs []*unstructured.Unstructured) []string {
	seen := map[string]bool{}
	for _, obj := range objs {
		eachContainer(obj, func(c map[string]any) {
			if image, _ := c["image"].(string); image != "" {
				seen[image] = true
			}
		})
		pod, _, _ := unstructured.NestedSlice(obj.Object, append(podSpecPath(obj.GetKind()), "volumes")...)
		for _, v := range pod {
			if volume, ok := v.(map[string]any); ok {
				if image, found, _ := unstructured.NestedString(volume, "image", "reference"); found {
					seen[image] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// injectorPrefix is the name of the ConfigMap with istiod's injector configuration. A revision other than the default
// is appended to it.
const injectorPrefix = "istio-sidecar-injector"

// proxyImage computes the image that istiod runs as gateway and waypoint, as its injector does: an image with a slash
// is the whole reference, otherwise it is hub/image:tag, with the variant in place of the one at the end of the tag
// (pkg/kube/inject/webhook.go, ProxyImage).
func proxyImage(obj *unstructured.Unstructured) string {
	if obj.GetKind() != "ConfigMap" || !strings.HasPrefix(obj.GetName(), injectorPrefix) {
		return ""
	}
	text, found, err := unstructured.NestedString(obj.Object, "data", "values")
	if err != nil || !found {
		return ""
	}
	var values struct {
		Global struct {
			Hub     string `json:"hub"`
			Tag     any    `json:"tag"`
			Variant string `json:"variant"`
			Proxy   struct {
				Image string `json:"image"`
			} `json:"proxy"`
		} `json:"global"`
	}
	if err := json.Unmarshal([]byte(text), &values); err != nil {
		return ""
	}
	g := values.Global
	if strings.Contains(g.Proxy.Image, "/") {
		return g.Proxy.Image
	}
	tag, _ := g.Tag.(string)
	if g.Hub == "" || g.Proxy.Image == "" || tag == "" {
		return ""
	}
	if g.Variant != "" {
		tag = strings.TrimSuffix(strings.TrimSuffix(tag, "-distroless"), "-debug")
		if g.Variant != "default" {
			tag += "-" + g.Variant
		}
	}
	return g.Hub + "/" + g.Proxy.Image + ":" + tag
}
