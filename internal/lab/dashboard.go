package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"ambientlab/internal/lesson/names"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/ui"
)

// dashboard is something to look at: a Service of the cluster and the local port that one expects it on.
type dashboard struct {
	name, namespace, service string
	port, local              int
	path                     string
}

func (l *Lab) dashboards() []dashboard {
	return []dashboard{ // the way in first: on macOS there is no other
		{"gateway", l.Settings.Namespace, names.GatewayAccount, 80, 8080, "/headers"},
		{"kiali", names.Istio, "kiali", 20001, 20001, "/kiali"},
		{"grafana", names.Istio, "grafana", 3000, 3000, "/"},
		{"jaeger", names.Istio, "tracing", 80, 16686, "/jaeger"},
		{"prometheus", names.Istio, "prometheus", 9090, 9090, "/"},
	}
}

// Dashboard forwards a local port to each dashboard that is installed, prints the addresses on stdout, and holds them
// until it is interrupted. A port that is taken is replaced by a free one. One that cannot be reached says why in its
// row and does not stop the others, unless it is the one to open.
func (l *Lab) Dashboard(ctx context.Context, open string) error {
	all := l.dashboards()
	if open != "" && !slices.ContainsFunc(all, func(d dashboard) bool { return d.name == open }) {
		return problem.New(problem.SettingInvalid, nil, "-open=%q is not accepted; accepted: kiali, grafana, jaeger, prometheus or gateway", open)
	}
	if err := l.attach(ctx); err != nil {
		return err
	}
	if err := l.needPackets("sm:dashboard"); err != nil {
		return err
	}
	client, err := l.connect(ctx)
	if err != nil {
		return err
	}
	forwarder, err := mesh.NewForwarder(client.Config())
	if err != nil {
		return err
	}
	opened, err := openAll(ctx, client.Kube(), forwarder, all)
	if err != nil {
		return err
	}
	defer opened.stop()
	if err := opened.table.Write(l.out); err != nil {
		return fmt.Errorf("printing the addresses: %w", err)
	}
	if err := opened.enough(open); err != nil {
		return err
	}
	if open != "" {
		if err := browse(ctx, opened.addresses[open]); err != nil {
			l.tell("no browser could be opened: %v", err)
		}
	}
	l.tell("Ctrl-C ends the forwarding")
	<-ctx.Done()
	return nil
}

// forwarded is what became of the dashboards: an address for each that is forwarded, and for the others why not.
type forwarded struct {
	table     ui.Table
	addresses map[string]string
	failed    map[string]error
	errs      []error // the same, in order
	forwards  []*mesh.Forward
}

func openAll(ctx context.Context, kube kubernetes.Interface, forwarder *mesh.Forwarder, all []dashboard) (*forwarded, error) {
	f := &forwarded{table: ui.Table{Header: []string{"WHAT", "ADDRESS"}}, addresses: map[string]string{}, failed: map[string]error{}}
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
			if d.name == "gateway" {
				address += "   (with header Host: " + names.Host + ")"
			}
			f.table.Add(d.name, address)
		}
	}
	return f, nil
}

// open forwards a local port to the dashboard; nil means that it is not installed.
func (d dashboard) open(ctx context.Context, kube kubernetes.Interface, forwarder *mesh.Forwarder) (*mesh.Forward, error) {
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

// enough says what is missing for the target to make sense: the dashboard that was to be opened, or any at all.
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
		return problem.New(problem.NotReady, nil, "neither the gateway nor any dashboard is installed").With("Run `mage sm:apps` for the gateway; SM_ADDONS says which dashboards `mage sm:install` brings.")
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

// tellAccess says how to reach appb from this host. On Linux the load-balancer address is reachable; Docker Desktop
// keeps it inside its virtual machine (kind#3556), where a forwarded port is the way.
func (l *Lab) tellAccess(ctx context.Context) error {
	client, err := l.connect(ctx)
	if err != nil {
		return err
	}
	gateway, err := l.get(ctx, client, gatewayKind, names.Gateway)
	if err != nil {
		return err
	}
	if gateway == nil {
		return problem.New(problem.ObjectMissing, nil, "Gateway %s is not there, although it was just applied", names.Gateway)
	}
	address := firstAddress(gateway)
	if !l.carriesPackets() {
		l.tell("the gateway's address is %s, which leads nowhere: nothing here carries packets. See its routes: mage sm:proxyConfig -of=gateway", address)
		return nil
	}
	if local, err := l.localAddress(ctx, client); local != "" || err != nil {
		l.tell("try: curl -H 'Host: %s' http://%s/headers", names.Host, local)
		return err
	}
	if runtime.GOOS == "linux" && l.Settings.UseMetalLB() && l.Settings.Provider == ProviderKind && address != "" {
		l.tell("try: curl -H 'Host: %s' http://%s/headers", names.Host, address)
		return nil
	}
	l.tell("try: mage sm:dashboard, and beside it curl -H 'Host: %s' http://127.0.0.1:8080/headers", names.Host)
	return nil
}

// localAddress is the address on this host at which the provider serves the gateway, or "".
func (l *Lab) localAddress(ctx context.Context, client *apply.Client) (string, error) {
	if l.embedded == nil {
		return "", nil
	}
	service, err := client.Kube().CoreV1().Services(l.Settings.Namespace).Get(ctx, names.GatewayAccount, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading Service %s: %w", names.GatewayAccount, err)
	}
	first, _, _ := strings.Cut(service.Annotations[embedded.HostAddress], ",")
	return first, nil
}
