//go:build e2e && e2efull

package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/sabotage"
)

// TestPacketsTelemetry takes a lab whose pods run through sm:telemetry with the two add-ons that can be built from
// source: what they show is proven, and refuted where they show less; their addresses lead to an answer at once.
func TestPacketsTelemetry(t *testing.T) {
	b := newBench(t, "packets-telemetry", "SM_PACKETS=on", "SM_ADDONS=prometheus,jaeger")
	b.installOrSkip()
	says(t, "install", b.talk.String(), "without its web interface")
	b.do("apps", b.apps)
	b.do("waypoint", b.waypoint)
	b.talk.reset()
	b.do("telemetry", b.telemetry)
	says(t, "telemetry", b.talk.String(), "no proxy counts istio_requests_total", "this Prometheus has no web pages",
		"this Jaeger has no web pages", "not installed, so nothing is claimed of it: grafana, kiali")
	b.do("fault", b.fault)
	b.do("authz", func(ctx context.Context) error { return b.Authz(ctx, "", false, false) })
	b.proven("prometheus-targets", "prometheus-edges", "prometheus-denied", "prometheus-delayed",
		"jaeger-trace", "jaeger-requests", "jaeger-denied", "jaeger-delayed")
	jaeger := named(t, descendants(t, b.pid("podrunner")), "/cmd/jaeger/jaeger-linux", "")
	status := read(t, fmt.Sprintf("/proc/%d/status", jaeger))
	t.Logf("Jaeger: %s", regexp.MustCompile(`VmRSS:\s*\d+ kB`).FindString(status))
	b.do("authz off", off(lesson.Authz("", false))(b))
	b.do("fault off", off(lesson.Fault(params.DefaultFault()))(b))
	for _, way := range sabotage.Addons() {
		b.refutes(way)
	}
	b.dashboardsAnswer()

	b.do("telemetry off", off(lesson.Telemetry())(b))
	verify := b.do("verify", b.verify)
	if strings.Contains(verify, "prometheus-") || strings.Contains(verify, "jaeger-") {
		t.Errorf("with the lesson off, the add-ons are judged: %s", verify)
	}
}

// dashboardsAnswer wants every address that sm:dashboard prints to answer with data, also after the pod behind it was
// replaced.
func (b *bench) dashboardsAnswer() {
	b.t.Helper()
	ctx, stop := context.WithCancel(b.t.Context())
	defer stop()
	reader, writer := io.Pipe()
	env := *b.Env
	env.Out = writer
	ended := make(chan error, 1)
	go func() {
		ended <- Dashboard("")(ctx, &env)
		_ = writer.Close()
	}()
	var table bytes.Buffer
	address := regexp.MustCompile(`http://127\.0\.0\.1:\S+`)
	found := map[string]string{}
	for buffer := make([]byte, 4096); found["jaeger"] == "" || found["prometheus"] == ""; {
		n, err := reader.Read(buffer)
		if err != nil {
			b.t.Fatalf("sm:dashboard printed %q: %v", table.String(), err)
		}
		table.Write(buffer[:n])
		for line := range strings.Lines(table.String()) {
			if name, _, _ := strings.Cut(line, " "); strings.HasSuffix(line, "\n") {
				found[name] = address.FindString(line)
			}
		}
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	for name, has := range map[string]string{"jaeger": `"traceID"`, "prometheus": `"mutual_tls"`} {
		b.page(found[name], has)
	}
	pods := b.kube().CoreV1().Pods(names.Istio)
	if err := pods.DeleteCollection(b.t.Context(), metav1.DeleteOptions{},
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=prometheus"}); err != nil {
		b.t.Fatal(err)
	}
	b.eventually("another pod of Prometheus is ready", func() bool {
		list, err := pods.List(b.t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=prometheus"})
		if err != nil {
			b.t.Fatal(err)
		}
		for _, pod := range list.Items {
			if pod.DeletionTimestamp != nil {
				return false
			}
			for _, c := range pod.Status.Conditions {
				if c.Type == "Ready" && c.Status == "True" {
					return true
				}
			}
		}
		return false
	})
	// The first request after that is not lost.
	b.page(found["prometheus"], `"status":"success"`)
	stop()
	if err := <-ended; err != nil && ctx.Err() == nil {
		b.t.Errorf("sm:dashboard: %v", err)
	}
}

// page wants one answer that holds some text.
func (b *bench) page(address, has string) {
	b.t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(address)
	if err != nil {
		b.t.Errorf("%s: %v", address, err)
		return
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), has) {
		b.t.Errorf("%s answers %s, %d bytes without %q, %v", address, response.Status, len(body), has, err)
	}
}
