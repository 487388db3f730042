// Package telemetry counts connections under ztunnel's metric names, and writes one line of access log for each.
package telemetry

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/workload"
)

// Telemetry holds the proxy's metrics.
type Telemetry struct {
	registry *prometheus.Registry
	log      *slog.Logger

	opened, closed, failed, received, sent *prometheus.CounterVec

	active  prometheus.Gauge
	pending prometheus.Gauge
	streams prometheus.Gauge
	sockets *prometheus.GaugeVec
}

// labels are the labels of every istio_tcp_* series, with ztunnel's names, by which Kiali draws its layer-4 edges.
var labels = []string{
	"reporter",
	"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
	"source_principal", "source_app", "source_version", "source_cluster", "source_region", "source_zone",
	"destination_service", "destination_service_namespace", "destination_service_name",
	"destination_workload", "destination_canonical_service", "destination_canonical_revision",
	"destination_workload_namespace", "destination_principal", "destination_app", "destination_version",
	"destination_cluster", "destination_region", "destination_zone",
	"request_protocol", "response_flags", "connection_security_policy",
}

// New returns the metrics; the access log goes to log.
func New(log *slog.Logger, version string) *Telemetry {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	t := &Telemetry{
		registry: prometheus.NewRegistry(), log: log,
		opened:   counter("istio_tcp_connections_opened_total", "TCP connections opened."),
		closed:   counter("istio_tcp_connections_closed_total", "TCP connections closed."),
		failed:   counter("istio_tcp_connections_failed_total", "TCP connections that failed to establish."),
		received: counter("istio_tcp_received_bytes_total", "Bytes that clients sent, as servers received them."),
		sent:     counter("istio_tcp_sent_bytes_total", "Bytes that servers sent."),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "workload_manager_active_proxy_count", Help: "Pods that are served.",
		}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "workload_manager_pending_proxy_count", Help: "Pods that could not be served yet.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "istio_xds_connected", Help: "1 while the discovery stream to the control plane is open.",
		}),
		sockets: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "istio_tcp_sockets_open", Help: "Accepted TCP sockets that are open now.",
		}, []string{"reporter"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "istio_build", Help: "Istio component build info.",
		ConstLabels: prometheus.Labels{"component": "ztunnel", "tag": version},
	})
	build.Set(1)
	t.registry.MustRegister(t.opened, t.closed, t.failed, t.received, t.sent, t.active, t.pending, t.streams, t.sockets,
		build)
	return t
}

// Handler serves the metrics.
func (t *Telemetry) Handler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{})
}

// Pods sets the numbers of pods that are served and that cannot be served yet.
func (t *Telemetry) Pods(active, pending int) {
	t.active.Set(float64(active))
	t.pending.Set(float64(pending))
}

// Discovery sets whether the discovery stream is open.
func (t *Telemetry) Discovery(up bool) {
	t.streams.Set(0)
	if up {
		t.streams.Set(1)
	}
}

// Socket counts an accepted socket as open until closed is called.
func (t *Telemetry) Socket(outbound bool) (closed func()) {
	g := t.sockets.WithLabelValues(reporter(outbound))
	g.Inc()
	return g.Dec
}

func reporter(outbound bool) string {
	if outbound {
		return "source"
	}
	return "destination"
}

func (i *Info) labels(flags string) prometheus.Labels {
	l := make(prometheus.Labels, len(labels))
	for _, name := range labels {
		l[name] = "unknown"
	}
	set := func(name, value string) {
		if value != "" {
			l[name] = value
		}
	}
	workloadLabels := func(prefix string, w *workload.Workload) {
		if w == nil {
			return
		}
		set(prefix+"_workload", w.WorkloadName)
		set(prefix+"_canonical_service", w.CanonicalName)
		set(prefix+"_canonical_revision", w.CanonicalRevision)
		set(prefix+"_workload_namespace", w.Namespace)
		set(prefix+"_app", w.CanonicalName)
		set(prefix+"_version", w.CanonicalRevision)
		set(prefix+"_cluster", w.ClusterID)
		set(prefix+"_region", w.Region)
		set(prefix+"_zone", w.Zone)
	}
	workloadLabels("source", i.Source)
	workloadLabels("destination", i.Destination)
	// The source's principal is set only if a certificate proves it.
	set("source_principal", i.SourceID.String())
	if i.Destination != nil {
		set("destination_principal", i.Destination.Identity().String())
	}
	if i.Service != nil {
		set("destination_service", i.Service.Hostname)
		set("destination_service_name", i.Service.Name)
		set("destination_service_namespace", i.Service.Namespace)
	}
	l["reporter"] = reporter(i.Outbound)
	l["request_protocol"] = "tcp"
	l["response_flags"] = flags
	if i.mutual() {
		l["connection_security_policy"] = "mutual_tls"
	}
	return l
}

func (i *Info) mutual() bool { return i.SourceID != identity.Identity{} }
