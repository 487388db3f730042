package mesh

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"
)

// The names under which Istio configures the two filters that carry traffic.
const (
	httpManager = "envoy.filters.network.http_connection_manager"
	tcpProxy    = "envoy.filters.network.tcp_proxy"
)

// ListenerRow is one filter chain of a listener, as `istioctl proxy-config listener` shows it.
type ListenerRow struct {
	// Addresses are separated by commas; internal listeners have none.
	Addresses string
	Port      int64
	// Match says which connections the chain takes; Destination where they go.
	Match, Destination string
}

// Listeners gives the rows of the listener table. Their content and order are those of istioctl 1.31 (istio.io/istio,
// istioctl/pkg/writer/envoy/configdump/listener.go), down to how ties are left: by sort.Slice, which is not stable.
func (d *Dump) Listeners() []ListenerRow {
	listeners := slices.Clone(d.listeners)
	sort.Slice(listeners, func(i, j int) bool {
		a, b := listeners[i], listeners[j]
		if p, q := listenerPort(a), listenerPort(b); p != q {
			return p < q
		}
		if p, q := listenerAddress(a), listenerAddress(b); p != q {
			return p < q
		}
		return listenerType(a) < listenerType(b)
	})
	var rows []ListenerRow
	for _, l := range listeners {
		addresses := []string{listenerAddress(l)}
		for _, more := range l.get("additional_addresses").list() {
			addresses = append(addresses, more.get("address", "socket_address", "address").str())
		}
		var chains []ListenerRow
		for _, chain := range filterChains(l) {
			chains = append(chains, ListenerRow{
				Addresses: strings.Join(addresses, ","), Port: listenerPort(l),
				Match: chainMatch(chain.get("filter_chain_match")), Destination: destination(chain),
			})
		}
		sort.Slice(chains, func(i, j int) bool { return chains[i].Destination > chains[j].Destination })
		rows = append(rows, chains...)
	}
	return rows
}

// WriteListeners writes the listener table, byte for byte as istioctl does.
func (d *Dump) WriteListeners(w io.Writer) error {
	if len(d.listeners) == 0 {
		return fmt.Errorf("no listeners found")
	}
	table := tabwriter.NewWriter(w, 0, 8, 1, ' ', 0)
	_, _ = fmt.Fprintln(table, "ADDRESSES\tPORT\tMATCH\tDESTINATION")
	for _, row := range d.Listeners() {
		_, _ = fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", row.Addresses, row.Port, row.Match, row.Destination)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("writing the listeners: %w", err)
	}
	return nil
}

func filterChains(l node) []node {
	chains := l.get("filter_chains").list()
	if last := l.get("default_filter_chain"); last.exists() {
		chains = append(chains, last)
	}
	return chains
}

func listenerAddress(l node) string {
	if socket := l.get("address", "socket_address"); socket.exists() {
		return socket.get("address").str()
	}
	return l.get("address", "pipe", "path").str()
}

func listenerPort(l node) int64 { return l.get("address", "socket_address", "port_value").number() }

// listenerType only orders listeners; it is no column of this table.
func listenerType(l node) string {
	http, tcp := false, false
	for _, chain := range filterChains(l) {
		for _, filter := range chain.get("filters").list() {
			switch filter.get("name").str() {
			case httpManager:
				http = true
			case tcpProxy:
				tcp = tcp || !isBlackHole(filter)
			}
		}
	}
	switch {
	case http && tcp:
		return "HTTP+TCP"
	case http:
		return "HTTP"
	case tcp:
		return "TCP"
	default:
		return "UNKNOWN"
	}
}

// isBlackHole tells whether a filter drops its traffic, in which case istioctl leaves it out.
func isBlackHole(filter node) bool { return filter.get("typed_config").mentions("BlackHoleCluster") }

// chainMatch puts a filter chain's match into words. Istio's own lists of ALPN protocols have names.
func chainMatch(match node) string {
	var words []string
	if names := match.get("server_names").strings(); len(names) > 0 {
		words = append(words, "SNI: "+strings.Join(names, ","))
	}
	if transport := match.get("transport_protocol").str(); transport != "" {
		words = append(words, "Trans: "+transport)
	}
	if protocols := match.get("application_protocols").strings(); len(protocols) > 0 {
		words = append(words, protocolsName(strings.Join(protocols, ",")))
	}
	port := ""
	if p := match.get("destination_port"); p.exists() {
		port = fmt.Sprintf(":%d", p.number())
	}
	var ranges []string
	for _, r := range match.get("prefix_ranges").list() {
		ranges = append(ranges, fmt.Sprintf("%s/%d", r.get("address_prefix").str(), r.get("prefix_len").number()))
	}
	switch {
	case len(ranges) > 0:
		words = append(words, "Addr: "+strings.Join(ranges, ",")+port)
	case port != "":
		words = append(words, "Addr: *"+port)
	}
	if len(words) == 0 {
		return "ALL"
	}
	return strings.Join(words, "; ")
}

func protocolsName(protocols string) string {
	switch protocols {
	case "http/1.0,http/1.1,h2c":
		return "App: HTTP"
	case "istio,istio-http/1.0,istio-http/1.1,istio-h2":
		return "App: Istio HTTP Plain"
	case "http/1.0,http/1.1,h2c,istio-http/1.0,istio-http/1.1,istio-h2":
		return "App: HTTP TLS"
	case "istio-peer-exchange,istio":
		return "App: TCP TLS"
	default:
		return "App: " + protocols
	}
}

// destination says where a filter chain sends its traffic.
func destination(chain node) string {
	for _, filter := range chain.get("filters").list() {
		config := filter.get("typed_config")
		switch filter.get("name").str() {
		case httpManager:
			if inline := config.get("route_config"); inline.exists() {
				return inlineRoutes(inline)
			}
			if name := config.get("rds", "route_config_name").str(); name != "" {
				return "Route: " + name
			}
			return "HTTP"
		case tcpProxy:
			if !isBlackHole(filter) {
				return clusterName(config.get("cluster").str())
			}
		}
	}
	return "Non-HTTP/Non-TCP"
}

// clusterName labels a cluster, unless its name says by itself that it is one.
func clusterName(name string) string {
	if strings.Contains(name, "Cluster") {
		return name
	}
	return "Cluster: " + name
}

func inlineRoutes(config node) string {
	hosts := config.get("virtual_hosts").list()
	if len(hosts) == 1 && everyDomain(hosts[0]) {
		routes := hosts[0].get("routes").list()
		if len(routes) == 1 && routes[0].get("match", "prefix").str() == "/" {
			if cluster := routes[0].get("route", "cluster"); cluster.exists() {
				return clusterName(cluster.str())
			}
		}
	}
	var words []string
	for _, host := range hosts {
		var matches []string
		for _, r := range host.get("routes").list() {
			matches = append(matches, routeMatch(r.get("match")))
		}
		text := strings.Join(matches, ", ")
		if !everyDomain(host) {
			text = strings.Join(host.get("domains").strings(), "/") + " " + text
		}
		words = append(words, text)
	}
	return "Inline Route: " + strings.Join(words, "; ")
}

func everyDomain(host node) bool {
	domains := host.get("domains").strings()
	return len(domains) == 1 && domains[0] == "*"
}

// routeMatch puts the path part of a route's match into words; headers are left out.
func routeMatch(match node) string {
	var words []string
	if prefix := match.get("prefix").str(); prefix != "" {
		words = append(words, prefix+"*")
	}
	if prefix := match.get("path_separated_prefix").str(); prefix != "" {
		words = append(words, "PathPrefix:"+prefix)
	}
	if path := match.get("path").str(); path != "" {
		words = append(words, path)
	}
	if regex := match.get("safe_regex"); regex.exists() {
		words = append(words, "regex "+regex.get("regex").str())
	}
	return strings.Join(words, " ")
}
