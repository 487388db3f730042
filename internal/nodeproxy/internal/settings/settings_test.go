package settings

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// chart is what the ztunnel chart of Istio 1.31 passes with its defaults.
const chart = `CA_ADDRESS=istiod.istio-system.svc:15012
XDS_ADDRESS=istiod.istio-system.svc:15012
RUST_LOG=info
RUST_BACKTRACE=1
ISTIO_META_CLUSTER_ID=Kubernetes
INPOD_ENABLED=true
TERMINATION_GRACE_PERIOD_SECONDS=30
POD_NAME=ztunnel-abcde
POD_NAMESPACE=istio-system
NODE_NAME=worker
INSTANCE_IP=10.244.1.4
SERVICE_ACCOUNT=ztunnel
ZTUNNEL_CPU_LIMIT=2`

func TestChart(t *testing.T) {
	s, err := Parse([]string{"proxy", "ztunnel"}, strings.Split(chart, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.XDSAddress != "istiod.istio-system.svc:15012" || s.CAAddress != s.XDSAddress || s.NodeName != "worker" ||
		s.PodName != "ztunnel-abcde" || s.PodNamespace != "istio-system" || s.InstanceIP != "10.244.1.4" ||
		s.ClusterID != "Kubernetes" {
		t.Errorf("%+v", s)
	}
	if s.Grace != 29*time.Second || s.SecretTTL != 24*time.Hour || s.LogLevel != slog.LevelInfo {
		t.Errorf("%+v", s)
	}
	if s.Socket != "/var/run/ztunnel/ztunnel.sock" || s.RootFile != "/var/run/secrets/istio/root-cert.pem" ||
		s.TokenFile != "/var/run/secrets/tokens/istio-token" || s.AdminAddr != "127.0.0.1:15000" ||
		s.StatsAddr != ":15020" || s.Healthy != ":15021" {
		t.Errorf("%+v", s)
	}
	if s.Meta["CLUSTER_ID"] != "Kubernetes" {
		t.Errorf("metadata %v", s.Meta)
	}
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		env  string
	}{
		"another mode":       {[]string{"proxy", "sidecar"}, ""},
		"shared mode":        {nil, "INPOD_ENABLED=false"},
		"no level":           {nil, "RUST_LOG=loud"},
		"no duration":        {nil, "SECRET_TTL=1"},
		"negative duration":  {nil, "SECRET_TTL=-1h"},
		"no number of grace": {nil, "TERMINATION_GRACE_PERIOD_SECONDS=x"},
	} {
		if s, err := Parse(c.args, []string{c.env}); err == nil {
			t.Errorf("%s: got %+v", name, s)
		}
	}
}

func TestLevel(t *testing.T) {
	for in, want := range map[string]slog.Level{
		"info": slog.LevelInfo, "debug": slog.LevelDebug, "trace": slog.LevelDebug, "WARN": slog.LevelWarn,
		"error":        slog.LevelError,
		"access=debug": slog.LevelInfo, "info,access=debug": slog.LevelInfo, "access=off, warn": slog.LevelWarn,
		"": slog.LevelInfo,
	} {
		if got, err := level(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}
