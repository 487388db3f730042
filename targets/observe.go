package targets

import (
	"context"

	"ambientlab/internal/lab"
)

//revive:disable:line-length-limit `mage -h` reads a comment per flag and the line of variables

// Status prints one table: provider, nodes, components, lessons, each ready or with the reason why it is not.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_WORKERS, SM_NODE_IMAGE, SM_KIND_CONFIG, SM_BUNDLE, SM_REGISTRY_MIRROR, SM_REGISTRY_CA, SM_ADDONS, SM_METALLB, SM_ISTIO_VALUES, SM_MANIFESTS, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Status(ctx context.Context) error {
	return lab.Run(ctx, "status", lab.Status)
}

// Plan shows every step of a target, what it would change, and the commands that do the same; it changes nothing.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_WORKERS, SM_NODE_IMAGE, SM_KIND_CONFIG, SM_BUNDLE, SM_REGISTRY_MIRROR, SM_REGISTRY_CA, SM_ADDONS, SM_METALLB, SM_ISTIO_VALUES, SM_MANIFESTS, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Plan(ctx context.Context,
	of *string, // which target: install or a lesson, such as fault; all of them unless given
	out *string, // also write the commands as a script, with the files they name, into this folder, which must be empty or new
) error {
	return lab.Run(ctx, "plan", lab.Plan(valueOr(of, ""), valueOr(out, "")))
}

// ProxyConfig prints the listeners and routes of the gateway or the waypoint, as istioctl proxy-config does.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func ProxyConfig(ctx context.Context,
	of *string, // gateway or waypoint; both unless given
) error {
	return lab.Run(ctx, "proxyConfig", lab.ProxyConfig(valueOr(of, "")))
}

// Dashboard forwards local ports to Kiali, Grafana, Jaeger, Prometheus and the gateway, and prints the addresses.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Dashboard(ctx context.Context,
	open *string, // also open this one in a browser: kiali, grafana, jaeger, prometheus or gateway
) error {
	return lab.Run(ctx, "dashboard", lab.Dashboard(valueOr(open, "")))
}

// Verify checks with requests that each lesson has its effect, and prints a verdict for each claim. Its exit code is 0 if all claims are proven.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Verify(ctx context.Context,
	out *string, // folder for report.html, report.json and junit.xml
) error {
	return lab.Run(ctx, "verify", lab.Verify(valueOr(out, "")))
}

// Traffic sends requests to appb, prints each response as it arrives and a histogram of the latencies. Ctrl-C ends it and prints a summary.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Traffic(ctx context.Context,
	from *string, // who sends the requests: appa or gateway; gateway unless given
	path *string, // which path; /headers unless given
	rps *float64, // requests a second, above 0 and up to 50; 2 unless given
	count *int, // number of requests; 0, which is the default, means until Ctrl-C
) error {
	options := lab.TrafficOptions{From: valueOr(from, "gateway"), Path: valueOr(path, "/headers"), RPS: valueOr(rps, 2), Count: valueOr(count, 0)}
	return lab.Run(ctx, "traffic", lab.Traffic(options))
}

// Doctor checks this host and the cluster for known causes of failure, and prints what to do about each.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Doctor(ctx context.Context) error {
	return lab.Run(ctx, "doctor", lab.Doctor)
}
