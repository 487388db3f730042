package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"ambientlab/internal/probe/traffic"
)

// Grafana is the telemetry add-on of that name, seen through its pod, by its HTTP API
// (https://grafana.com/docs/grafana/latest/developers/http_api).
type Grafana struct{ Cluster traffic.Cluster }

// Dashboard is a page of Grafana.
type Dashboard struct{ UID, Title string }

// Dashboards lists them.
func (g Grafana) Dashboards(ctx context.Context) ([]Dashboard, error) {
	var found []Dashboard
	return found, g.get(ctx, "/api/search?type=dash-db&limit=1000", &found)
}

// panel is part of a dashboard; a row has panels of its own.
type panel struct {
	Targets []struct{ Expr string }
	Panels  []panel
}

// Queries lists what the panels of a dashboard ask Prometheus, with the dashboard's variables as they are.
func (g Grafana) Queries(ctx context.Context, uid string) ([]string, error) {
	var answer struct{ Dashboard panel }
	if err := g.get(ctx, "/api/dashboards/uid/"+url.PathEscape(uid), &answer); err != nil {
		return nil, err
	}
	return answer.Dashboard.queries(), nil
}

func (p panel) queries() []string {
	var all []string
	for _, t := range p.Targets {
		if t.Expr != "" {
			all = append(all, t.Expr)
		}
	}
	for _, inner := range p.Panels {
		all = append(all, inner.queries()...)
	}
	return all
}

// Query evaluates a query now, in Prometheus through Grafana's own connection to it.
func (g Grafana) Query(ctx context.Context, query string) ([]Sample, error) {
	var sources []struct{ UID, Type string }
	if err := g.get(ctx, "/api/datasources", &sources); err != nil {
		return nil, err
	}
	for _, s := range sources {
		if s.Type != "prometheus" {
			continue
		}
		body, err := addon(ctx, g.Cluster, grafanaPods, grafanaPort, "/api/datasources/proxy/uid/"+
			url.PathEscape(s.UID)+"/api/v1/query?query="+url.QueryEscape(query))
		if err != nil {
			return nil, fmt.Errorf("asking Grafana: %w", err)
		}
		return readVector(body)
	}
	return nil, fmt.Errorf("Grafana has no data source of type prometheus, but %d others", len(sources))
}

// Where the add-on's pod is found.
const (
	grafanaPods = "app.kubernetes.io/name=grafana"
	grafanaPort = 3000
)

func (g Grafana) get(ctx context.Context, path string, into any) error {
	body, err := addon(ctx, g.Cluster, grafanaPods, grafanaPort, path)
	if err != nil {
		return fmt.Errorf("asking Grafana: %w", err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("reading Grafana's answer: %w", err)
	}
	return nil
}
