package cluster

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/client"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"ambientlab/internal/problem"
)

// RESTConfig connects with the administrator's credentials, taken from the control plane itself: the user's kubeconfig
// may have been edited since.
func (k *Kind) RESTConfig(ctx context.Context) (*rest.Config, error) {
	entries, _, err := k.entries(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*entries, nil).ClientConfig()
	if err != nil {
		return nil, problem.New(problem.KubeconfigInvalid, err, "the kubeconfig of kind cluster %s", k.opts.Name)
	}
	unthrottled(cfg)
	return cfg, nil
}

// entries are what the user's kubeconfig gets: kind's own, with the address at which this process reaches the API
// server. reached is false where it reaches none.
func (k *Kind) entries(ctx context.Context) (entries *api.Config, reached bool, err error) {
	if err := k.needDockerCommand(); err != nil {
		return nil, false, err
	}
	nodes, err := k.nodes(ctx)
	if err != nil {
		return nil, false, err
	}
	return k.entriesOf(ctx, nodes)
}

func (k *Kind) entriesOf(ctx context.Context, nodes []Node) (entries *api.Config, reached bool, err error) {
	raw, err := k.kubeconfig(ctx, nodes)
	if err != nil {
		return nil, false, problem.New(
			problem.ClusterUnreachable, err, "reading the kubeconfig of kind cluster %s from its control plane",
			k.opts.Name,
		)
	}
	entries, err = clientcmd.Load([]byte(raw))
	if err != nil {
		return nil, false, problem.New(problem.KubeconfigInvalid, err, "the kubeconfig of kind cluster %s", k.opts.Name)
	}
	server, ok := entries.Clusters[k.contextName()]
	if !ok {
		return nil, false, problem.New(
			problem.KubeconfigInvalid, nil, "the kubeconfig of kind cluster %s has no cluster %s", k.opts.Name,
			k.contextName(),
		)
	}
	address, reached := k.reach(ctx, server, nodes)
	if reached {
		server.Server = "https://" + address
	}
	return entries, reached, nil
}

// kubeconfig gives kind's kubeconfig of the cluster. It does not change while the control plane's container is the
// same, so it is read once for each container and the address at which Docker publishes the API server.
func (k *Kind) kubeconfig(ctx context.Context, nodes []Node) (string, error) {
	first, _ := firstControlPlane(nodes)
	key := first.ContainerID + " " + first.APIServer
	if raw, ok := k.kubeconfigs.Load(key); ok && first.APIServer != "" {
		return raw.(string), nil
	}
	raw, err := k.readKubeconfig(ctx, first)
	if err != nil {
		// kind's own way runs several docker commands. It also knows of load balancers.
		log := newProgressLog(ctx)
		raw, err = detached(ctx, func() (string, error) { return k.library(log).KubeConfig(k.opts.Name, false) })
	}
	if err == nil {
		k.kubeconfigs.Store(key, raw)
	}
	return raw, err
}

// readKubeconfig makes of the administrator's credentials what kind makes of them (kind,
// pkg/cluster/internal/kubeconfig): kind's names, and the published address.
func (k *Kind) readKubeconfig(ctx context.Context, controlPlane Node) (string, error) {
	if controlPlane.APIServer == "" {
		return "", errors.New("Docker does not publish the API server's port of the control plane")
	}
	copied, err := k.opts.Docker.CopyFromContainer(ctx, controlPlane.ContainerID,
		client.CopyFromContainerOptions{SourcePath: adminConfig})
	if err != nil {
		return "", err
	}
	defer copied.Content.Close()
	archive := tar.NewReader(copied.Content)
	if _, err := archive.Next(); err != nil {
		return "", err
	}
	content, err := io.ReadAll(archive)
	if err != nil {
		return "", err
	}
	admin, err := clientcmd.Load(content)
	if err != nil {
		return "", err
	}
	if len(admin.Clusters) != 1 || len(admin.AuthInfos) != 1 {
		return "", fmt.Errorf("%s has %d clusters and %d users", adminConfig, len(admin.Clusters), len(admin.AuthInfos))
	}
	name, entries := k.contextName(), api.NewConfig()
	for _, server := range admin.Clusters {
		server.Server = "https://" + controlPlane.APIServer
		entries.Clusters[name] = server
	}
	for _, user := range admin.AuthInfos {
		entries.AuthInfos[name] = user
	}
	entries.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	entries.CurrentContext = name
	raw, err := clientcmd.Write(*entries)
	return string(raw), err
}

// unthrottled takes the client's own rate limit off: the API server has a fairer one (controller-runtime does the same,
// pkg/client/config).
func unthrottled(cfg *rest.Config) { cfg.QPS, cfg.Burst = -1, -1 }

// needDockerCommand: kind's library runs the docker command for everything it does.
func (k *Kind) needDockerCommand() error {
	if _, err := k.lookPath("docker"); err != nil {
		return problem.New(problem.ToolMissing, err, "the docker command is not on PATH, and kind's library runs it").
			With("Install Docker's command-line client (package docker-cli or docker.io), next to the engine.")
	}
	return nil
}

// detached runs what takes no context (kind's library: kubernetes-sigs/kind#4169) and stops waiting for it when ctx
// ends.
func detached[T any](ctx context.Context, run func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := run()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var zero T
		return zero, context.Cause(ctx)
	}
}

// CollectLogs writes what `kind export logs` writes.
func (k *Kind) CollectLogs(ctx context.Context, dir string) error {
	if err := k.needDockerCommand(); err != nil {
		return err
	}
	log := newProgressLog(ctx)
	_, err := detached(ctx,
		func() (struct{}, error) { return struct{}{}, k.library(log).CollectLogs(k.opts.Name, dir) })
	if err != nil {
		return fmt.Errorf("collecting the logs of kind cluster %s into %s: %w", k.opts.Name, dir, err)
	}
	return nil
}
