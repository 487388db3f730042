package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// kialiVersion is the Kiali of Istio 1.31.1, by its release notes. The pinned module is older than that release and
// names v2.27, a tag that moves with each patch release.
const (
	kialiVersion = "v2.31.0"
	kialiImage   = "quay.io/kiali/kiali:" + kialiVersion
)

// stampKiali writes the version of the image that is used wherever an object gives the version that was shipped: Kiali
// itself shows these labels as its version.
func stampKiali(objs []*unstructured.Unstructured) error {
	for _, obj := range objs {
		for _, at := range [][]string{
			{"metadata", "labels"},
			{"spec", "template", "metadata", "labels"},
		} {
			labels, found, err := unstructured.NestedStringMap(obj.Object, at...)
			if err != nil {
				return fmt.Errorf("labels of %s %s: %w", obj.GetKind(), obj.GetName(), err)
			}
			if !found {
				continue
			}
			for _, name := range []string{"version", "app.kubernetes.io/version"} {
				if labels[name] != "" {
					labels[name] = kialiVersion
				}
			}
			if err := unstructured.SetNestedStringMap(obj.Object, labels, at...); err != nil {
				return fmt.Errorf("labels of %s %s: %w", obj.GetKind(), obj.GetName(), err)
			}
		}
	}
	return nil
}

// patchKiali configures Kiali for the add-ons that are installed. As shipped it reads from Prometheus only, tracing is
// off, and it looks for a waypoint's spans under the workload's name, where there are none. Without an external_url of
// Grafana, Kiali's API answers 503 for Grafana, and its pages have no links to the dashboards.
func patchKiali(objs []*unstructured.Unstructured, installed []string) error {
	if err := stampKiali(objs); err != nil {
		return err
	}
	var sum string
	for _, obj := range objs {
		if obj.GetKind() != "ConfigMap" || obj.GetName() != Kiali {
			continue
		}
		text, found, err := unstructured.NestedString(obj.Object, "data", "config.yaml")
		if err != nil || !found {
			return fmt.Errorf("ConfigMap kiali has no config.yaml: %w", err)
		}
		patched, err := kialiConfig(text, installed)
		if err != nil {
			return err
		}
		if err := unstructured.SetNestedField(obj.Object, patched, "data", "config.yaml"); err != nil {
			return err
		}
		digest := sha256.Sum256([]byte(patched))
		sum = hex.EncodeToString(digest[:])
	}
	if sum == "" {
		return errors.New("kiali.yaml holds no ConfigMap kiali")
	}
	for _, obj := range objs {
		if obj.GetKind() != "Deployment" || obj.GetName() != Kiali {
			continue
		}
		eachContainer(obj, func(c map[string]any) { c["image"] = kialiImage })
		// Kiali reads its configuration once. The checksum makes the Deployment replace the pod when it changes.
		at := []string{"spec", "template", "metadata", "annotations", "checksum/config"}
		if err := unstructured.SetNestedField(obj.Object, sum, at...); err != nil {
			return err
		}
	}
	return nil
}

// Dashboards lists the titles of those dashboards of the Grafana add-on that Kiali links to.
func Dashboards() []string {
	var titles []string
	for _, d := range grafanaDashboards() {
		title, _ := d.(map[string]any)["name"].(string)
		titles = append(titles, title)
	}
	return titles
}

// grafanaDashboards are those of Istio's add-on that Kiali links to, by their titles, with the variables that Kiali
// sets from what a page is about.
func grafanaDashboards() []any {
	return []any{
		map[string]any{"name": "Istio Service Dashboard", "variables": map[string]any{
			"namespace": "var-namespace", "service": "var-service",
		}},
		map[string]any{"name": "Istio Workload Dashboard", "variables": map[string]any{
			"namespace": "var-namespace", "workload": "var-workload",
		}},
		map[string]any{"name": "Istio Mesh Dashboard"},
		map[string]any{"name": "Istio Control Plane Dashboard"},
		map[string]any{"name": "Istio Ztunnel Dashboard"},
	}
}

func kialiConfig(text string, installed []string) (string, error) {
	var config map[string]any
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return "", fmt.Errorf("config.yaml of ConfigMap kiali: %w", err)
	}
	if deployment, _ := config["deployment"].(map[string]any); deployment != nil {
		deployment["image_version"], deployment["version_label"] = kialiVersion, kialiVersion
	}
	services, _ := config["external_services"].(map[string]any)
	if services == nil {
		services = map[string]any{}
		config["external_services"] = services
	}
	services["grafana"] = map[string]any{"enabled": false}
	if slices.Contains(installed, Grafana) {
		services["grafana"] = map[string]any{
			"enabled":      true,
			"internal_url": "http://grafana.istio-system:3000",
			"external_url": "http://localhost:3000",
			"dashboards":   grafanaDashboards(),
		}
	}
	services["tracing"] = map[string]any{"enabled": false}
	if slices.Contains(installed, Jaeger) {
		services["tracing"] = map[string]any{
			"enabled":           true,
			"internal_url":      "http://tracing.istio-system:16685/jaeger",
			"use_grpc":          true,
			"external_url":      "http://localhost:16686/jaeger",
			"use_waypoint_name": true,
		}
	}
	out, err := yaml.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("config.yaml of ConfigMap kiali: %w", err)
	}
	return string(out), nil
}
