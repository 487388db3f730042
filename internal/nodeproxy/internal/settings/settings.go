// Package settings reads what the ztunnel DaemonSet of Istio's chart hands over: arguments and environment.
package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// Settings is everything that can be set. Names in comments are the environment variables.
type Settings struct {
	CAAddress, XDSAddress         string // CA_ADDRESS, XDS_ADDRESS: host:port
	NodeName                      string // NODE_NAME
	PodName, PodNamespace         string // POD_NAME, POD_NAMESPACE
	InstanceIP                    string // INSTANCE_IP
	ClusterID                     string // ISTIO_META_CLUSTER_ID
	Network                       string // NETWORK
	Socket                        string // INPOD_UDS
	RootFile, TokenFile           string // XDS_ROOT_CA and CA_ROOT_CA (the same here), AUTH_TOKEN
	AdminAddr, StatsAddr, Healthy string // ADMIN_ADDR, STATS_ADDR, READINESS_ADDR
	// SecretTTL is the lifetime to ask for in certificates (SECRET_TTL, such as "24h").
	SecretTTL time.Duration
	// Grace is how long connections may take to end at shutdown (one second less than TERMINATION_GRACE_PERIOD_SECONDS).
	Grace    time.Duration
	LogLevel slog.Level        // RUST_LOG
	Meta     map[string]string // every ISTIO_META_*, without the prefix
}

// Parse reads the arguments after the program's name and the environment.
func Parse(args, environ []string) (*Settings, error) {
	if err := checkArgs(args); err != nil {
		return nil, err
	}
	env := map[string]string{}
	s := &Settings{Meta: map[string]string{}}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
		if name, ok := strings.CutPrefix(k, "ISTIO_META_"); ok {
			s.Meta[name] = v
		}
	}
	get := func(name, fallback string) string {
		if v := env[name]; v != "" {
			return v
		}
		return fallback
	}
	s.XDSAddress = get("XDS_ADDRESS", "istiod.istio-system.svc:15012")
	s.CAAddress = get("CA_ADDRESS", s.XDSAddress)
	s.NodeName, s.PodName, s.PodNamespace = get("NODE_NAME", ""), get("POD_NAME", ""), get("POD_NAMESPACE", "")
	s.InstanceIP = get("INSTANCE_IP", "1.1.1.1")
	s.ClusterID = get("ISTIO_META_CLUSTER_ID", get("CLUSTER_ID", "Kubernetes"))
	s.Meta["CLUSTER_ID"] = s.ClusterID
	s.Network = get("NETWORK", "")
	if s.Network != "" {
		s.Meta["NETWORK"] = s.Network
	}
	s.Socket = get("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock")
	s.RootFile = get("XDS_ROOT_CA", "/var/run/secrets/istio/root-cert.pem")
	s.TokenFile = get("AUTH_TOKEN", "/var/run/secrets/tokens/istio-token")
	s.AdminAddr = get("ADMIN_ADDR", "127.0.0.1:15000")
	s.StatsAddr = get("STATS_ADDR", ":15020")
	s.Healthy = get("READINESS_ADDR", ":15021")
	var err error
	if s.SecretTTL, err = time.ParseDuration(get("SECRET_TTL", "24h")); err != nil || s.SecretTTL < time.Second {
		return nil, fmt.Errorf("SECRET_TTL %q is no duration of at least a second", env["SECRET_TTL"])
	}
	seconds, err := strconv.ParseUint(get("TERMINATION_GRACE_PERIOD_SECONDS", "6"), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("TERMINATION_GRACE_PERIOD_SECONDS: %w", err)
	}
	// A second is kept back, so that the proxy ends its connections itself before the kubelet kills it.
	s.Grace = max(time.Duration(seconds)*time.Second-time.Second, 0)
	if s.LogLevel, err = level(get("RUST_LOG", "info")); err != nil {
		return nil, err
	}
	if v := env["INPOD_ENABLED"]; v != "" && v != "true" {
		return nil, fmt.Errorf("INPOD_ENABLED=%q: this proxy only serves pods in their own network namespaces", v)
	}
	return s, nil
}

// checkArgs accepts what the chart passes: proxy ztunnel.
func checkArgs(args []string) error {
	switch strings.Join(args, " ") {
	case "", "proxy", "proxy ztunnel":
		return nil
	}
	return errors.New("usage: ztunnel proxy ztunnel")
}

// level reads a level from Rust's log filter: the first part that names no target, such as info in "info,access=debug".
func level(filter string) (slog.Level, error) {
	for part := range strings.SplitSeq(filter, ",") {
		switch strings.ToLower(strings.TrimSpace(part)) {
		case "trace", "debug":
			return slog.LevelDebug, nil
		case "info":
			return slog.LevelInfo, nil
		case "warn":
			return slog.LevelWarn, nil
		case "error", "off":
			return slog.LevelError, nil
		case "":
		default:
			if !strings.Contains(part, "=") {
				return 0, fmt.Errorf("RUST_LOG %q: %q is no level", filter, part)
			}
		}
	}
	return slog.LevelInfo, nil
}
