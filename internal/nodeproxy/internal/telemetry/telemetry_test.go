package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/workload"
)

func info(outbound bool) Info {
	mk := func(name string) *workload.Workload {
		return &workload.Workload{
			Name: name + "-x1", Namespace: "default", ServiceAccount: name, TrustDomain: "cluster.local",
			WorkloadName:  name,
			CanonicalName: name, CanonicalRevision: "v1", ClusterID: "Kubernetes",
		}
	}
	return Info{
		Outbound: outbound, Src: netip.MustParseAddrPort("10.0.0.1:4000"),
		Dst: netip.MustParseAddrPort("10.0.0.2:15008"), Target: "10.0.0.2:8080",
		Source: mk("appa"), Destination: mk("appb"),
		SourceID: identity.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "appa"},
		Service:  &workload.Service{Name: "appb", Namespace: "default", Hostname: "appb.default.svc.cluster.local"},
	}
}

func scrape(tel *Telemetry) string {
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/stats/prometheus", nil))
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	tel := New(slog.New(slog.DiscardHandler), "test")
	c := tel.Open(info(true))
	c.Request(100)
	c.Response(2000)
	c.Close(nil, FlagNone)
	d := tel.Open(info(false))
	d.Close(errors.New("refused"), FlagDenied)
	text := scrape(tel)
	// The labels by which Kiali joins source and destination.
	for _, want := range []string{
		`source_workload="appa"`, `source_workload_namespace="default"`, `source_canonical_service="appa"`,
		`source_canonical_revision="v1"`,
		`source_principal="spiffe://cluster.local/ns/default/sa/appa"`, `source_cluster="Kubernetes"`,
		`destination_service="appb.default.svc.cluster.local"`, `destination_service_name="appb"`,
		`destination_service_namespace="default"`,
		`destination_workload="appb"`, `destination_principal="spiffe://cluster.local/ns/default/sa/appb"`,
		`request_protocol="tcp"`, `connection_security_policy="mutual_tls"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no label %s", want)
		}
	}
	for series, value := range map[string]string{
		`istio_tcp_connections_opened_total{reporter="source",response_flags="-"}`:         "1",
		`istio_tcp_connections_closed_total{reporter="source",response_flags="-"}`:         "1",
		`istio_tcp_received_bytes_total{reporter="source",response_flags="-"}`:             "100",
		`istio_tcp_sent_bytes_total{reporter="source",response_flags="-"}`:                 "2000",
		`istio_tcp_connections_closed_total{reporter="destination",response_flags="DENY"}`: "1",
		`istio_tcp_connections_failed_total{reporter="destination",response_flags="DENY"}`: "1",
	} {
		if got := find(text, series); got != value {
			t.Errorf("%s is %q, want %s", series, got, value)
		}
	}
}

// find reads the value of the one series that has the name and the labels of pattern among its own.
func find(text, pattern string) string {
	name, rest, _ := strings.Cut(strings.TrimSuffix(pattern, "}"), "{")
lines:
	for line := range strings.SplitSeq(text, "\n") {
		if !strings.HasPrefix(line, name+"{") {
			continue
		}
		for label := range strings.SplitSeq(rest, ",") {
			if !strings.Contains(line, label) {
				continue lines
			}
		}
		return line[strings.LastIndex(line, " ")+1:]
	}
	return ""
}

func TestUnknown(t *testing.T) {
	tel := New(slog.New(slog.DiscardHandler), "test")
	tel.Open(Info{}).Close(nil, FlagNone)
	if text := scrape(tel); !strings.Contains(text, `source_workload="unknown"`) ||
		!strings.Contains(text, `connection_security_policy="unknown"`) {
		t.Error(text)
	}
}

func TestAccessLog(t *testing.T) {
	var b bytes.Buffer
	tel := New(slog.New(slog.NewJSONHandler(&b, nil)), "test")
	c := tel.Open(info(true))
	c.Request(100)
	c.Response(2000)
	c.Close(errors.New("why"), FlagConnect)
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("%v: %s", err, b.String())
	}
	for field, want := range map[string]any{
		"src.addr": "10.0.0.1:4000", "src.workload": "appa-x1", "src.namespace": "default",
		"src.identity": "spiffe://cluster.local/ns/default/sa/appa",
		"dst.addr":     "10.0.0.2:15008", "dst.hbone_addr": "10.0.0.2:8080",
		"dst.service": "appb.default.svc.cluster.local", "dst.workload": "appb-x1",
		"dst.identity": "spiffe://cluster.local/ns/default/sa/appb", "direction": "outbound", "bytes_sent": 100.0,
		"bytes_recv": 2000.0,
		"error":      "why", "msg": "connection complete",
	} {
		if line[field] != want {
			t.Errorf("%s is %v, want %v", field, line[field], want)
		}
	}
	if _, ok := line["duration"].(string); !ok {
		t.Errorf("duration is %v", line["duration"])
	}
	// Without mutual TLS no identity is proved, and none is logged.
	b.Reset()
	plain := info(false)
	plain.SourceID, plain.Target = identity.Identity{}, ""
	tel.Open(plain).Close(nil, FlagNone)
	if strings.Contains(b.String(), "identity") {
		t.Errorf("plain connection: %s", b.String())
	}
}
