package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd/api"

	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// kind publishes the API server on the loopback address of the Docker engine's host (kind,
// networking.apiServerAddress). A process in a container with the engine's socket, or one whose engine is elsewhere,
// has another loopback address. It may still have a route to the nodes' own addresses, which are in the API server's
// certificate.

// greetTime bounds a connection to an address of the API server. A refusal takes no time; an answer may, on a slow
// machine.
const greetTime = 5 * time.Second

// reachInterval is how often an API server that does not answer yet is tried.
const reachInterval = 500 * time.Millisecond

// reach gives the address, host and port, at which the API server answers from here: the published one, or else one of
// the control planes' own. ok is false where none does.
func (k *Kind) reach(ctx context.Context, published *api.Cluster, nodes []Node) (address string, ok bool) {
	server, err := url.Parse(published.Server)
	if err != nil {
		return "", false
	}
	_, own := addresses(nodes)
	candidates := append([]string{server.Host}, own...)
	for _, address := range candidates {
		bounded, cancel := context.WithTimeout(ctx, greetTime)
		err := k.greet(bounded, address, published.CertificateAuthorityData)
		cancel()
		if err == nil {
			return address, true
		}
	}
	return "", false
}

// greet makes a TLS connection to a server whose certificate the authority signed for that address: another program may
// listen at the same port of another host.
func greet(ctx context.Context, address string, authority []byte) error {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return errors.New("the kubeconfig has no certificate authority")
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	connection, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return connection.Close()
}

// closedTries is how often in a row the addresses of the API server must be out of reach: a published port may open a
// little later than its container starts.
const closedTries = 6

// outOfReach sends a problem if the control plane's container runs and nothing of it can be reached from here. It needs
// no API server: Docker's proxy listens at the published address before the API server does, and a node that refuses a
// connection can be reached.
func (k *Kind) outOfReach(ctx context.Context) <-chan error {
	found := make(chan error, 1)
	go func() {
		for closed := 0; closed < closedTries; {
			nodes, _ := k.nodes(ctx) // where Docker does not answer, kind says so
			published, own := addresses(nodes)
			if len(published) > 0 && len(own) > 0 {
				if slices.ContainsFunc(published, func(a string) bool { return k.connect(ctx, a) == nil }) ||
					slices.ContainsFunc(own, func(a string) bool {
						err := k.connect(ctx, a)
						return err == nil || errors.Is(err, syscall.ECONNREFUSED)
					}) {
					return
				}
				closed++
			}
			select {
			case <-k.after(reachInterval):
			case <-ctx.Done():
				return
			}
			if closed == closedTries {
				found <- problem.New(problem.APIServerElsewhere, nil,
					"the nodes of kind cluster %s run, but the lab cannot connect to the API server: neither to its "+
						"published address (%s) nor to the node's address (%s)",
					k.opts.Name, strings.Join(published, ", "), strings.Join(own, ", "))
			}
		}
	}()
	return found
}

// addresses lists the published addresses of the API server, and the control planes' own.
func addresses(nodes []Node) (published, own []string) {
	for _, n := range nodes {
		if !n.Running {
			continue
		}
		if n.APIServer != "" {
			published = append(published, n.APIServer)
		}
		if n.Role == node.ControlPlane && n.InternalIP != "" {
			own = append(own, net.JoinHostPort(n.InternalIP, node.APIServerPort))
		}
	}
	return published, own
}

// connectTime bounds a connection whose answer may be dropped on the way.
const connectTime = time.Second

func connect(ctx context.Context, address string) error {
	bounded, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	connection, err := (&net.Dialer{}).DialContext(bounded, "tcp", address)
	if err != nil {
		return err
	}
	return connection.Close()
}

// awaitReachable waits until the API server answers from here. Where it already answers inside of its own container,
// waiting does not help: that is a problem.
func (k *Kind) awaitReachable(ctx context.Context, nodes []Node) error {
	for {
		host, ok, err := k.reached(ctx)
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		case k.answersInside(ctx, nodes):
			// It may have begun to answer in between.
			if host, ok, err = k.reached(ctx); err != nil || ok {
				return err
			}
			return k.notFromHere(host)
		}
		engine.Progress(ctx, "waiting for the API server at %s", host)
		select {
		case <-k.after(reachInterval):
		case <-ctx.Done():
			return problem.New(problem.ClusterUnreachable, context.Cause(ctx), "the API server at %s does not answer",
				host)
		}
	}
}

// reached gives the address of the API server, and whether it answers there.
func (k *Kind) reached(ctx context.Context) (host string, ok bool, err error) {
	entries, ok, err := k.entries(ctx)
	if err != nil {
		return "", false, err
	}
	return entries.Clusters[k.contextName()].Server, ok, nil
}

// answersInside asks the API server from within the first control plane's container.
func (k *Kind) answersInside(ctx context.Context, nodes []Node) bool {
	first, ok := firstControlPlane(nodes)
	if !ok {
		return false
	}
	bounded, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	_, err := docker.Exec(bounded, k.opts.Docker, first.ContainerID,
		"kubectl", "--kubeconfig=/etc/kubernetes/admin.conf", "--request-timeout=5s", "get", "--raw=/livez")
	return err == nil
}

func (k *Kind) notFromHere(host string) error {
	return problem.New(problem.APIServerElsewhere, nil,
		"the API server of kind cluster %s answers inside its container, but the lab can connect to it neither at %s "+
			"nor at its node's address", k.opts.Name, host)
}
