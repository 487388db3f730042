// Command nodeproxy is a node proxy for Istio's ambient mode. The lab uses it in ztunnel's place where ztunnel's image
// is not available. The ztunnel DaemonSet of Istio's chart runs it without changes: its arguments are "proxy ztunnel",
// and its settings are environment variables.
//
// It serves the pods that istio-cni names. It sends their outbound traffic as HBONE under the pod's own identity, and
// checks inbound connections against istiod's layer-4 policies.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"ambientlab/nodeproxy/internal/admin"
	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/netns"
	"ambientlab/nodeproxy/internal/pods"
	"ambientlab/nodeproxy/internal/policy"
	"ambientlab/nodeproxy/internal/settings"
	"ambientlab/nodeproxy/internal/telemetry"
	"ambientlab/nodeproxy/internal/workload"
	"ambientlab/nodeproxy/internal/xds"
	"ambientlab/nodeproxy/internal/zds"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println(version())
		return
	}
	s, err := settings.Parse(os.Args[1:], os.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then waits for open connections as long as the settings permit.
func run(ctx context.Context, s *settings.Settings) error {
	log := newLog(s.LogLevel)
	log.Info("node proxy starting: a substitute for ztunnel, built from source", "version", version(), "node",
		s.NodeName)
	log.Info("not supported: DNS capture (set ambient.dnsCapture to false), IPv6, multi-network, east-west gateways")
	home, err := netns.Home()
	if err != nil {
		return err
	}
	defer home.Close()

	workloads, policies := workload.NewStore(), policy.NewStore(log)
	tel := telemetry.New(log.With("scope", "access"), version())
	ca, err := xds.Dial(s.CAAddress, s.CAServerName, s.RootFile, s.TokenFile)
	if err != nil {
		return err
	}
	defer ca.Close()
	conn, err := xds.Dial(s.XDSAddress, s.XDSServerName, s.RootFile, s.TokenFile)
	if err != nil {
		return err
	}
	defer conn.Close()
	certs := identity.NewStore(identity.NewCA(ca, s.ClusterID, s.SecretTTL), log, time.Now)
	tunnels, err := hbone.NewServer(log)
	if err != nil {
		return err
	}
	manager := pods.NewManager(pods.Deps{
		Home: home, Workloads: workloads, Policies: policies, Certs: certs, Telemetry: tel, HBONE: tunnels, Log: log,
	})

	const fromCNI, fromIstiod, shutdown = "pods from istio-cni", "configuration from istiod", "end of the shutdown"
	ready := admin.NewReadiness(fromCNI, fromIstiod)
	// The pages are served after ctx has ended, too, so that readiness and metrics can be read while connections drain.
	pages, closePages := context.WithCancel(context.WithoutCancel(ctx))
	defer closePages()
	if err := serve(pages, s, ready, tel, admin.Source{
		Version: version(), Workloads: workloads, Policies: policies, Certs: certs, Pods: manager,
	}); err != nil {
		return err
	}
	node := xds.Node(s.InstanceIP, s.PodName, s.PodNamespace, s.NodeName, s.Meta)
	discovery := xds.New(conn, node, workloads, policies, log, tel.Discovery)
	cni := zds.New(s.Socket, manager, log, func(ok bool) { ready.Set(fromCNI, ok) })

	var clients sync.WaitGroup
	clients.Go(func() { discovery.Run(ctx) })
	clients.Go(func() { cni.Run(ctx) })
	clients.Go(func() {
		select {
		case <-discovery.Ready():
			ready.Set(fromIstiod, true)
		case <-ctx.Done():
		}
	})
	<-ctx.Done()
	ready.Set(shutdown, false)
	log.Info("shutting down; waiting for open connections", "grace", s.Grace.String())
	clients.Wait()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Grace)
	defer cancel()
	manager.Drain(drain)
	log.Info("shut down")
	return nil
}

func serve(
	ctx context.Context, s *settings.Settings, ready http.Handler, tel *telemetry.Telemetry, dump http.Handler,
) error {
	pages := []struct {
		addr, path string
		handler    http.Handler
	}{
		{s.Healthy, "GET /healthz/ready", ready},
		{s.StatsAddr, "GET /stats/prometheus", tel.Handler()},
		{s.AdminAddr, "GET /config_dump", dump},
	}
	for _, p := range pages {
		mux := http.NewServeMux()
		mux.Handle(p.path, p.handler)
		if p.addr == s.StatsAddr {
			mux.Handle("GET /metrics", p.handler)
		}
		if err := admin.Serve(ctx, p.addr, mux); err != nil {
			return err
		}
	}
	return nil
}

// newLog writes JSON lines with ztunnel's names: time, level in lower case, message.
func newLog(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			switch a.Key {
			case slog.MessageKey:
				a.Key = "message"
			case slog.LevelKey:
				a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
			}
			return a
		},
	}))
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
