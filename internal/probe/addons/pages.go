package addons

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
)

// Validations wants Kiali to know the objects of the applications' namespace and to find no error in them.
func Validations() probe.Gather {
	return afterwards("Kiali", scrapeLimit,
		func(ctx context.Context, site probe.Site, _ probe.Measurement) (probe.Verdict, string, error) {
			found, err := observe.Kiali{Cluster: site.Cluster}.Validation(ctx, site.Namespace)
			if err != nil {
				return "", "", err
			}
			return met(found.Objects > 0 && found.Errors == 0), fmt.Sprintf(
				"Kiali has validated %d objects of namespace %s: %d errors, %d warnings", found.Objects, site.Namespace,
				found.Errors, found.Warnings), nil
		})
}

// Graph wants Kiali to draw the connections on the way from appa to appb, with mutual TLS on all of them. It shows the
// rates of the last minute, so that Prometheus must have read the proxies twice since the requests.
func Graph() probe.Gather {
	return afterwards("Kiali", scrapeLimit, graph)
}

func graph(ctx context.Context, site probe.Site, _ probe.Measurement) (probe.Verdict, string, error) {
	drawn, err := observe.Kiali{Cluster: site.Cluster}.Graph(ctx, site.Namespace)
	if err != nil {
		return "", "", err
	}
	way := []string{names.AppA, names.AppB}
	if site.Lessons.On("waypoint") {
		way = slices.Insert(way, 1, names.Waypoint)
	}
	var texts []string
	all := true
	for i := range len(way) - 1 {
		text := "not drawn"
		drawnWell := false
		for _, e := range drawn {
			if e.From == way[i] && e.To == way[i+1] {
				text, drawnWell = fmt.Sprintf("drawn, %g %% with mutual TLS", e.MutualTLS), e.MutualTLS == 100
			}
		}
		texts, all = append(texts, way[i]+" to "+way[i+1]+": "+text), all && drawnWell
	}
	return met(all), strings.Join(texts, ", "), nil
}

// Dashboards wants Grafana to load dashboards of these titles, and data from those of their queries that ask for
// connections of the node proxies.
func Dashboards(titles ...string) probe.Gather {
	return afterwards("Grafana", scrapeLimit,
		func(ctx context.Context, site probe.Site, _ probe.Measurement) (probe.Verdict, string, error) {
			return dashboards(ctx, observe.Grafana{Cluster: site.Cluster}, titles)
		})
}

// rateInterval is what Grafana puts in for a variable of that name: four intervals of the readings.
const rateInterval = 4 * observe.ScrapeInterval

func dashboards(ctx context.Context, g observe.Grafana, titles []string) (probe.Verdict, string, error) {
	known, err := g.Dashboards(ctx)
	if err != nil {
		return "", "", err
	}
	loaded, asked, missing, empty := 0, 0, []string{}, []string{}
	for _, title := range titles {
		at := slices.IndexFunc(known, func(d observe.Dashboard) bool { return d.Title == title })
		if at < 0 {
			missing = append(missing, title)
			continue
		}
		queries, err := g.Queries(ctx, known[at].UID)
		if err != nil {
			return "", "", err
		}
		if len(queries) == 0 {
			missing = append(missing, title+" (it has no queries)")
			continue
		}
		loaded++
		for _, query := range queries {
			if !strings.Contains(query, observe.Opened) {
				continue
			}
			query = strings.ReplaceAll(query, "$__rate_interval", fmt.Sprintf("%.0fs", rateInterval.Seconds()))
			if strings.Contains(query, "$") { // of what a user chooses on the page
				continue
			}
			samples, err := g.Query(ctx, query)
			if err != nil {
				return "", "", err
			}
			asked++
			if len(samples) == 0 {
				empty = append(empty, query)
			}
		}
	}
	text := fmt.Sprintf("%d of %d dashboards load; of %d queries for connections %d return data", loaded, len(titles),
		asked, asked-len(empty))
	if len(missing) > 0 {
		text += "; missing: " + strings.Join(missing, ", ")
	}
	if len(empty) > 0 {
		text += "; no data: " + strings.Join(empty, "; ")
	}
	return met(len(missing) == 0 && asked > 0 && len(empty) == 0), text, nil
}
