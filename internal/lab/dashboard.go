package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/ui"
)

// dashboard is a Service of the cluster and the local port on which it is usually found.
type dashboard struct {
	name, namespace, service string
	port, local              int
	// path leads to a page that is not empty; note says what else to know.
	path, note string
}

// edges is the query for who connects to whom, and how: the node proxies count every connection.
const edges = "sum by (source_workload, destination_workload, connection_security_policy) " +
	"(istio_tcp_connections_opened_total)"

// dashboards lists all of them. Where an image is a substitute without web pages, the path is that of a query. Kiali
// leaves waypoints out of its graph unless asked for them.
func dashboards(namespace string, substitutes session.Substitutes) []dashboard {
	const noPages = "a query: this substitute has no web pages"
	prometheus := dashboard{
		"prometheus", names.Istio, "prometheus", 9090, 9090, "/query?g0.tab=1&g0.expr=" + url.QueryEscape(edges), "",
	}
	if substitutes.Prometheus() != "" {
		prometheus.path, prometheus.note = "/api/v1/query?query="+url.QueryEscape(edges), noPages
	}
	service := "service=" + names.Waypoint + "." + namespace
	jaeger := dashboard{"jaeger", names.Istio, "tracing", 80, 16686, "/jaeger/search?" + service, ""}
	if substitutes.Jaeger() != "" {
		jaeger.path, jaeger.note = "/jaeger/api/traces?"+service+"&limit=20&lookback=1h", noPages
	}
	return []dashboard{ // the gateway first: where its address cannot be reached, this is the only way to it
		{"gateway", namespace, names.GatewayAccount, 80, 8080, "/headers", ""},
		{
			"kiali", names.Istio, "kiali", 20001, 20001,
			"/kiali/console/graph/namespaces?namespaces=" + namespace + "&duration=600&waypoints=true", "",
		},
		{"grafana", names.Istio, "grafana", 3000, 3000, "/dashboards", ""},
		jaeger,
		prometheus,
	}
}

// Dashboard is the target that forwards a local port to each dashboard that is installed, prints the addresses on
// stdout, and keeps them until it is interrupted. A port that is taken is replaced by a free one. A dashboard that
// cannot be reached has the reason in its row and does not stop the others, unless it is the one to open.
func Dashboard(open string) Target {
	return func(ctx context.Context, env *session.Env) error {
		if open != "" && !slices.ContainsFunc(dashboards("", nil), func(d dashboard) bool { return d.name == open }) {
			return problem.New(problem.SettingInvalid, nil,
				"-open=%q is not accepted; accepted: kiali, grafana, jaeger, prometheus or gateway", open)
		}
		s, err := session.Open(ctx, env, session.MustBeInstalled)
		if err != nil {
			return err
		}
		if err := needPackets(s, "sm:dashboard"); err != nil {
			return err
		}
		return forward(ctx, s, open)
	}
}

func forward(ctx context.Context, s *session.Session, open string) error {
	client, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	forwarder, err := mesh.NewForwarder(client.Config())
	if err != nil {
		return err
	}
	substitutes, err := s.Substitutes(ctx)
	if err != nil {
		return err
	}
	opened, err := openAll(ctx, client.Kube(), forwarder, dashboards(s.Config.Namespace, substitutes))
	if err != nil {
		return err
	}
	defer opened.stop()
	if err := opened.table.Write(s.Out); err != nil {
		return fmt.Errorf("printing the addresses: %w", err)
	}
	if err := opened.enough(open); err != nil {
		return err
	}
	if open != "" {
		if err := browse(ctx, opened.addresses[open]); err != nil {
			s.Tell("no browser could be opened: %v", err)
		}
	}
	s.Tell("Ctrl-C ends the forwarding")
	<-ctx.Done()
	return nil
}

// needPackets refuses a target that makes no sense where pods exchange no packets.
func needPackets(s *session.Session, target string) error {
	if s.Info.Packets {
		return nil
	}
	return problem.New(problem.HostUnsupported, nil, "%s needs pods that exchange packets; in %s they do not", target,
		s.Traits.Title).
		With("Use a kind cluster (SM_PROVIDER=kind) or one of your own (INSTALL_KIND=n).")
}

// forwarded holds an address for each dashboard that is forwarded, and for the others the error.
type forwarded struct {
	table     ui.Table
	addresses map[string]string
	failed    map[string]error
	errs      []error // the same, in order
	forwards  []*mesh.Forward
}

func openAll(
	ctx context.Context, kube kubernetes.Interface, forwarder *mesh.Forwarder, all []dashboard,
) (*forwarded, error) {
	f := &forwarded{
		table: ui.Table{Header: []string{"WHAT", "ADDRESS"}}, addresses: map[string]string{},
		failed: map[string]error{},
	}
	for _, d := range all {
		forward, err := d.open(ctx, kube, forwarder)
		if ctx.Err() != nil {
			f.stop()
			return nil, context.Cause(ctx)
		}
		switch {
		case err != nil:
			f.failed[d.name] = err
			f.errs = append(f.errs, fmt.Errorf("%s: %w", d.name, err))
			f.table.Add(d.name, "not forwarded: "+err.Error())
		case forward != nil:
			f.forwards = append(f.forwards, forward)
			address := "http://" + forward.Addr() + d.path
			f.addresses[d.name] = address
			if d.name == "gateway" { // a browser cannot set the header
				browser := strings.Replace(address, "127.0.0.1", names.LocalHost, 1)
				f.addresses[d.name] = browser
				address += "   (with header Host: " + names.Host + "; in a browser: " + browser + ")"
			}
			if d.note != "" {
				address += "   (" + d.note + ")"
			}
			f.table.Add(d.name, address)
		}
	}
	return f, nil
}

// open forwards a local port to the dashboard; nil means that it is not installed.
func (d dashboard) open(
	ctx context.Context, kube kubernetes.Interface, forwarder *mesh.Forwarder,
) (*mesh.Forward, error) {
	_, err := kube.CoreV1().Services(d.namespace).Get(ctx, d.service, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for Service %s/%s: %w", d.namespace, d.service, err)
	}
	forward, err := forwarder.Service(ctx, d.namespace, d.service, d.port, fmt.Sprintf("127.0.0.1:%d", d.local))
	if problem.Is(err, problem.PortInUse) {
		forward, err = forwarder.Service(ctx, d.namespace, d.service, d.port, "127.0.0.1:0")
	}
	return forward, err
}

// enough fails where the dashboard that was to be opened is missing, or where there is none at all.
func (f *forwarded) enough(open string) error {
	if open != "" && f.addresses[open] == "" {
		if err := f.failed[open]; err != nil {
			return fmt.Errorf("%s cannot be opened: %w", open, err)
		}
		return problem.New(problem.NotReady, nil, "%s is not installed, so it cannot be opened", open)
	}
	if len(f.addresses) > 0 {
		return nil
	}
	if len(f.errs) == 0 {
		return problem.New(problem.NotReady, nil, "neither the gateway nor any dashboard is installed").
			With("Run `mage sm:apps` for the gateway; SM_ADDONS says which dashboards `mage sm:install` brings.")
	}
	return fmt.Errorf("nothing could be forwarded: %w", errors.Join(f.errs...))
}

func (f *forwarded) stop() {
	for _, forward := range f.forwards {
		forward.Stop()
	}
}

// browse opens an address in the user's browser.
func browse(ctx context.Context, address string) error {
	command := cmp.Or(map[string]string{"darwin": "open", "windows": "explorer"}[runtime.GOOS], "xdg-open")
	if err := exec.CommandContext(ctx, command, address).Run(); err != nil {
		return fmt.Errorf("%s %s: %w", command, address, err)
	}
	return nil
}
