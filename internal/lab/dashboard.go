package lab

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	return []dashboard{
		{"kiali", istioNamespace, "kiali", 20001, 20001, "/kiali"},
		{"grafana", istioNamespace, "grafana", 3000, 3000, "/"},
		{"jaeger", istioNamespace, "tracing", 80, 16686, "/jaeger"},
		{"prometheus", istioNamespace, "prometheus", 9090, 9090, "/"},
		{"gateway", l.Settings.Namespace, gatewayIdentity, 80, 8080, "/headers"},
	}
}

// Dashboard forwards a local port to each dashboard that is installed, prints the addresses on stdout, and holds them
// until it is interrupted. A port that is taken is replaced by a free one.
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
	table := ui.Table{Header: []string{"WHAT", "ADDRESS"}}
	var toOpen string
	for _, d := range all {
		_, err := client.Kube().CoreV1().Services(d.namespace).Get(ctx, d.service, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("looking for Service %s/%s: %w", d.namespace, d.service, err)
		}
		forward, err := forwarder.Service(ctx, d.namespace, d.service, d.port, fmt.Sprintf("127.0.0.1:%d", d.local))
		if problem.Is(err, problem.PortInUse) {
			forward, err = forwarder.Service(ctx, d.namespace, d.service, d.port, "127.0.0.1:0")
		}
		if err != nil {
			return err
		}
		defer forward.Stop()
		address := "http://" + forward.Addr() + d.path
		if d.name == open {
			toOpen = address
		}
		if d.name == "gateway" {
			address += "   (with header Host: " + host + ")"
		}
		table.Add(d.name, address)
	}
	if err := table.Write(l.out); err != nil {
		return fmt.Errorf("printing the addresses: %w", err)
	}
	if open != "" {
		if toOpen == "" {
			return problem.New(problem.NotReady, nil, "%s is not installed, so it cannot be opened", open)
		}
		if err := browse(ctx, toOpen); err != nil {
			l.tell("no browser could be opened: %v", err)
		}
	}
	l.tell("Ctrl-C ends the forwarding")
	<-ctx.Done()
	return nil
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
	gateway, err := l.get(ctx, client, gatewayKind, gatewayName)
	if err != nil {
		return err
	}
	if gateway == nil {
		return problem.New(problem.ObjectMissing, nil, "Gateway %s is not there, although it was just applied", gatewayName)
	}
	address := firstAddress(gateway)
	if l.embedded != nil {
		l.tell("the gateway's address is %s, which leads nowhere: nothing here carries packets. See its routes: mage sm:proxyConfig -of=gateway", address)
		return nil
	}
	if runtime.GOOS == "linux" && l.Settings.UseMetalLB() && l.Settings.Provider == ProviderKind && address != "" {
		l.tell("try: curl -H 'Host: %s' http://%s/headers", host, address)
		return nil
	}
	l.tell("try: mage sm:dashboard, and beside it curl -H 'Host: %s' http://127.0.0.1:8080/headers", host)
	return nil
}
