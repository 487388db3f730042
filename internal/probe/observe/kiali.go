package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"ambientlab/internal/probe/traffic"
)

// Kiali is the telemetry add-on of that name, seen through its pod. Its API is for its own pages and changes with its
// version; the answers are read as those of version 2.
type Kiali struct{ Cluster traffic.Cluster }

// Validation is what Kiali says of the objects of Istio and of the Gateway API in one namespace.
type Validation struct{ Objects, Errors, Warnings int }

// Validation gives the sums of a namespace.
func (k Kiali) Validation(ctx context.Context, namespace string) (Validation, error) {
	body, err := k.get(ctx, "/istio/validations", url.Values{"namespaces": {namespace}})
	if err != nil {
		return Validation{}, err
	}
	var answer []struct {
		Namespace                     string
		Errors, Warnings, ObjectCount int
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Validation{}, fmt.Errorf("reading Kiali's answer: %w", err)
	}
	for _, a := range answer {
		if a.Namespace == namespace {
			return Validation{a.ObjectCount, a.Errors, a.Warnings}, nil
		}
	}
	return Validation{}, fmt.Errorf("Kiali says nothing of namespace %s", namespace)
}

// Edge is an arrow of Kiali's graph, between two workloads.
type Edge struct {
	From, To string
	// MutualTLS is the percentage of its traffic on connections with mutual TLS.
	MutualTLS float64
}

// Graph gives the arrows that Kiali draws of the connections in a namespace in the last minute, waypoints included.
func (k Kiali) Graph(ctx context.Context, namespace string) ([]Edge, error) {
	body, err := k.get(ctx, "/namespaces/graph", url.Values{
		"namespaces": {namespace}, "graphType": {"versionedApp"}, "duration": {"60s"}, "ambientTraffic": {"total"},
		"waypoints": {"true"}, "rateTcp": {"sent"},
		"appenders": {"deadNode,istio,serviceEntry,meshCheck,workloadEntry,health,ambient,securityPolicy"},
	})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Elements struct {
			Nodes []struct {
				Data struct{ ID, Workload, App, Service string }
			}
			Edges []struct {
				Data struct{ Source, Target, IsMTLS string }
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("reading Kiali's answer: %w", err)
	}
	names := map[string]string{}
	for _, n := range answer.Elements.Nodes {
		names[n.Data.ID] = n.Data.Workload
		if n.Data.Workload == "" {
			names[n.Data.ID] = n.Data.App
		}
	}
	var edges []Edge
	for _, e := range answer.Elements.Edges {
		mutual, _ := strconv.ParseFloat(e.Data.IsMTLS, 64) // left out where there is none
		edges = append(edges, Edge{names[e.Data.Source], names[e.Data.Target], mutual})
	}
	return edges, nil
}

func (k Kiali) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	body, err := addon(ctx, k.Cluster, "app.kubernetes.io/name=kiali", 20001, "/kiali/api"+path+"?"+query.Encode())
	if err != nil {
		return nil, fmt.Errorf("asking Kiali: %w", err)
	}
	return body, nil
}
