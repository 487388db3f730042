// Package settings reads the arguments and environment variables that the ztunnel DaemonSet of Istio's chart sets.
package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// Settings are the proxy's settings. Names in comments are the environment variables.
type Settings struct {
	CAAddress, XDSAddress string // CA_ADDRESS, XDS_ADDRESS: host:port
	// ALT_CA_HOSTNAME, ALT_XDS_HOSTNAME: name in istiod's certificate, if not the host
	CAServerName, XDSServerName   string
	NodeName                      string // NODE_NAME
	PodName, PodNamespace         string // POD_NAME, POD_NAMESPACE
	InstanceIP                    string // INSTANCE_IP
	ClusterID                     string // ISTIO_META_CLUSTER_ID
	Network                       string // NETWORK
	Socket                        string // INPOD_UDS
	RootFile, TokenFile           string // XDS_ROOT_CA, for the CA as well; AUTH_TOKEN
	AdminAddr, StatsAddr, Healthy string // ADMIN_ADDR, STATS_ADDR, READINESS_ADDR
	// SecretTTL is the lifetime of certificates to request (SECRET_TTL, such as "24h").
	SecretTTL time.Duration
	// Grace is how long open connections have to end at shutdown (one second less than
	// TERMINATION_GRACE_PERIOD_SECONDS).
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
	s.XDSServerName, s.CAServerName = get("ALT_XDS_HOSTNAME", ""), get("ALT_CA_HOSTNAME", "")
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
		return nil, fmt.Errorf("SECRET_TTL %q is not a duration of at least one second, such as 24h", env["SECRET_TTL"])
	}
	seconds, err := strconv.ParseUint(get("TERMINATION_GRACE_PERIOD_SECONDS", "6"), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("TERMINATION_GRACE_PERIOD_SECONDS: %w", err)
	}
	// One second less, so that the proxy resets the connections that are left before the kubelet kills it.
	s.Grace = max(time.Duration(seconds)*time.Second-time.Second, 0)
	if s.LogLevel, err = level(get("RUST_LOG", "info")); err != nil {
		return nil, err
	}
	if v := env["INPOD_ENABLED"]; v != "" && v != "true" {
		return nil, fmt.Errorf(
			"INPOD_ENABLED=%q: the node proxy serves pods in their own network namespaces only; want true", v)
	}
	return s, nil
}

// checkArgs accepts the chart's arguments: proxy ztunnel.
func checkArgs(args []string) error {
	switch strings.Join(args, " ") {
	case "", "proxy", "proxy ztunnel":
		return nil
	}
	return errors.New("usage: ztunnel proxy ztunnel")
}

// level returns the level in a log filter of Rust: the first part without a target, such as info in
// "info,access=debug".
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
				return 0, fmt.Errorf("RUST_LOG %q: %q is not a level; want trace, debug, info, warn, error or off",
					filter, part)
			}
		}
	}
	return slog.LevelInfo, nil
}
