package mesh

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
)

// RouteRow is one route, as `istioctl proxy-config route` shows it.
type RouteRow struct {
	// Name is the route configuration's; VHost the virtual host's in it.
	Name, VHost string
	// Domains are at most two of those the virtual host answers for.
	Domains string
	// Match is the path; VirtualService the object the route comes from, as name.namespace, or 404 for a virtual host
	// with no routes.
	Match, VirtualService string
}

// Routes gives the rows of the route table. Their content and order are those of istioctl 1.31 (istio.io/istio,
// istioctl/pkg/writer/envoy/configdump/route.go): by number where both names are numbers, otherwise as sort.Slice
// leaves them.
func (d *Dump) Routes() []RouteRow {
	configs := slices.Clone(d.routes)
	sort.Slice(configs, func(i, j int) bool {
		a, errA := strconv.Atoi(configs[i].get("name").str())
		b, errB := strconv.Atoi(configs[j].get("name").str())
		return errA == nil && errB == nil && a < b
	})
	var rows []RouteRow
	for _, config := range configs {
		for _, host := range config.get("virtual_hosts").list() {
			row := RouteRow{
				Name: config.get("name").str(), VHost: host.get("name").str(),
				Domains: shortDomains(host.get("domains").strings()),
			}
			routes := host.get("routes").list()
			for _, r := range routes {
				if r.get("route", "cluster").str() == "PassthroughCluster" {
					continue
				}
				row.Match, row.VirtualService = routeMatch(r.get("match")), owner(r.get("metadata"))
				rows = append(rows, row)
			}
			if len(routes) == 0 {
				row.Match, row.VirtualService = "/*", "404"
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// WriteRoutes writes the route table, byte for byte as istioctl does.
func (d *Dump) WriteRoutes(w io.Writer) error {
	if len(d.routes) == 0 {
		return fmt.Errorf("no routes found")
	}
	table := tabwriter.NewWriter(w, 0, 8, 5, ' ', 0)
	_, _ = fmt.Fprintln(table, "NAME\tVHOST NAME\tDOMAINS\tMATCH\tVIRTUAL SERVICE")
	for _, row := range d.Routes() {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", row.Name, row.VHost, row.Domains, row.Match,
			row.VirtualService)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the routes: %w", err)
	}
	return nil
}

// shortDomains names the domains of a virtual host: without their ports, without the longer spellings of a service that
// is there under a shorter one, and no more than two of them.
func shortDomains(domains []string) string {
	const shown = 2
	if len(domains) < 2 {
		return strings.Join(domains, "")
	}
	var names []string
	for _, domain := range domains {
		colons := strings.Count(domain, ":")
		bareIPv6 := colons > 2 && strings.HasSuffix(domain, "]")
		if colons == 0 || bareIPv6 {
			names = append(names, domain)
		}
	}
	longer := func(domain string) bool {
		for _, suffix := range []string{".svc.cluster.local", ".svc"} {
			if short, cut := strings.CutSuffix(domain, suffix); cut && slices.Contains(names, short) {
				return true
			}
		}
		return false
	}
	var kept []string
	for _, name := range names {
		if !longer(name) {
			kept = append(kept, name)
		}
	}
	if len(kept) > shown {
		return fmt.Sprintf("%s + %d more...", strings.Join(kept[:shown], ", "), len(kept)-shown)
	}
	return strings.Join(kept, ", ")
}

// owner names the Istio object a route was made from, as name.namespace. Istio notes its API path,
// /apis/networking.istio.io/v1/namespaces/<ns>/<kind>/<name>.
func owner(metadata node) string {
	istio := metadata.get("filter_metadata", "istio")
	config := istio.get("config")
	if !config.exists() {
		return ""
	}
	path := config.str()
	if !strings.HasPrefix(path, "/apis/networking.istio.io/") {
		return "<unknown>"
	}
	parts := strings.Split(path, "/")
	if len(parts) != 8 {
		return ""
	}
	return parts[7] + "." + parts[5]
}
