package session

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"ambientlab/internal/cluster"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/problem"
	"ambientlab/internal/source"
)

// FindProvider gives the provider of the lab, the same one for every session: the one that the settings name, or where
// they name none, the place in which a lab of this name is, and kind for a new lab.
func (e *Env) FindProvider(ctx context.Context) (cluster.Provider, error) {
	if e.shared.provider == nil {
		provider, err := e.choose(ctx)
		if err != nil {
			return nil, err
		}
		if conflicts := e.Settings.providerConflicts(provider.Traits().Name); len(conflicts) > 0 {
			return nil, problem.New(problem.SettingConflict, nil, "%s", strings.Join(conflicts, "\n"))
		}
		e.shared.provider = provider
	}
	return e.shared.provider, nil
}

// choose makes the provider that the settings name, or looks for the lab.
func (e *Env) choose(ctx context.Context) (cluster.Provider, error) {
	switch e.Settings.Provider {
	case cluster.ProviderExisting:
		return e.existing(ctx)
	case cluster.ProviderEmbedded:
		return e.embedded()
	case cluster.ProviderKind:
		return e.kind(ctx)
	}
	if e.Settings.Provider == ProviderAuto && !e.Whole {
		return nil, problem.New(problem.SettingInvalid, nil,
			"SM_PROVIDER=auto is for sm:lab and sm:workshop; accepted here: kind, existing, embedded")
	}
	return e.find(ctx)
}

// kind asks the Docker engine which cgroup version it has, since the kind configuration depends on it.
func (e *Env) kind(ctx context.Context) (*cluster.Kind, error) {
	info, err := e.DockerInfo(ctx)
	if err != nil {
		return nil, err
	}
	config, err := e.kindConfig(info)
	if err != nil {
		return nil, err
	}
	return cluster.NewKind(cluster.KindOptions{
		Name: e.Settings.Cluster, Config: config, NodeImage: e.Settings.NodeImage, Kubeconfig: e.Settings.Kubeconfig,
		Docker: e.shared.docker, Endpoint: e.shared.endpoint,
	}), nil
}

// existing takes the cluster of the current kubeconfig context and names it before anything is changed: another program
// may have changed the context. Its nodes may be containers of a Docker engine. Most clusters' nodes are not, so it is
// no error that no engine answers.
func (e *Env) existing(ctx context.Context) (*cluster.Existing, error) {
	options := cluster.ExistingOptions{Kubeconfig: e.Settings.Kubeconfig}
	if _, err := e.DockerInfo(ctx); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		e.shared.docker, options.NoDocker = nil, err
	} else {
		options.Docker = e.shared.docker
	}
	existing := cluster.NewExisting(options)
	info, err := existing.Named()
	if err != nil {
		return nil, err
	}
	e.Tell("cluster: context %s at %s, which the lab did not create", info.Context, info.Server)
	return existing, nil
}

func (e *Env) embedded() (*embedded.Embedded, error) {
	later := []string{cluster.ProcessIstiod}
	if e.Settings.MetalLB != "off" {
		later = []string{cluster.ProcessMetalLB, cluster.ProcessIstiod}
	}
	return embedded.New(embedded.Options{
		Later:   later,
		Packets: e.Settings.Packets, Ztunnel: e.Settings.Ztunnel, Addons: e.Settings.requestedAddons(),
		Name: e.Settings.Cluster, Workers: e.Settings.Workers, StateDir: e.StateDir, Kubeconfig: e.Settings.Kubeconfig,
		Programs: func(progress func(program, message string)) (embedded.Programs, error) {
			return source.New(source.Options{Progress: progress})
		},
	})
}

// find looks for the lab among the lab's own providers. Where Docker does not answer, a lab that is embedded is used; a
// kind cluster that the lab did not create is not a lab.
func (e *Env) find(ctx context.Context) (cluster.Provider, error) {
	plane, err := e.embedded()
	if err != nil {
		return nil, err
	}
	if _, noDocker := e.DockerInfo(ctx); noDocker != nil {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case plane.Exists():
			return e.found(plane)
		case e.Settings.Provider == ProviderAuto:
			return e.auto(ctx, noDocker)
		}
		var known *problem.Problem
		if errors.As(noDocker, &known) {
			known.With(fmt.Sprintf("No embedded control plane has the name %s, so the lab was looked for in Docker.",
				e.Settings.Cluster))
		}
		return nil, noDocker
	}
	kind, err := e.kind(ctx)
	if err != nil {
		return nil, err
	}
	info, err := cluster.Find(ctx, kind)
	if err != nil {
		return nil, err
	}
	switch inKind := info.Exists && info.Owned; {
	case inKind && plane.Exists():
		return nil, problem.New(problem.NameAmbiguous, nil, "there are two labs with the name %s: %s and %s",
			e.Settings.Cluster, kind.Traits().Title, plane.Traits().Title)
	case inKind:
		return e.found(kind)
	case plane.Exists():
		return e.found(plane)
	case e.Settings.Provider == ProviderAuto:
		return e.auto(ctx, nil)
	}
	return kind, nil
}

// found says where the lab is, once.
func (e *Env) found(provider cluster.Provider) (cluster.Provider, error) {
	traits := provider.Traits()
	e.Tell("lab %s: %s", e.Settings.Cluster, traits.Title)
	return provider, nil
}

// auto creates the lab in kind where a Docker engine answers and it has or can pull the node image, else in an embedded
// control plane. It says which, why, and how to get the other. noDocker is why no Docker engine answers, or nil.
func (e *Env) auto(ctx context.Context, noDocker error) (cluster.Provider, error) {
	obstacle, err := e.kindObstacle(ctx, noDocker)
	if err != nil {
		return nil, err
	}
	if obstacle == "" {
		e.Tell("provider: kind, because a Docker engine answers and the node image is available; " +
			"for the embedded control plane, set SM_PROVIDER=embedded")
		return e.kind(ctx)
	}
	e.Tell("provider: the embedded control plane, because %s; for kind, fix this first "+
		"(mage sm:doctor with SM_PROVIDER=kind checks it)", obstacle)
	e.Tell("the programs of the embedded control plane are built the first time, which takes minutes; " +
		"later starts take seconds")
	return e.embedded()
}

// WithoutDocker gives the provider that sm:lab chooses for a new lab because no Docker engine answers, and says why
// none does. The provider is nil where an engine answers, where the settings name a provider, and where the lab exists.
func (e *Env) WithoutDocker(ctx context.Context) (plane *embedded.Embedded, why string, err error) {
	if e.Settings.Provider != "" {
		return nil, "", nil
	}
	plane, err = e.embedded()
	if err != nil || plane.Exists() {
		return nil, "", err
	}
	_, noDocker := e.DockerInfo(ctx)
	if noDocker == nil || ctx.Err() != nil {
		return nil, "", context.Cause(ctx)
	}
	why, err = e.kindObstacle(ctx, noDocker)
	return plane, why, err
}

// kindObstacle says why a kind cluster cannot be created here, or "".
func (e *Env) kindObstacle(ctx context.Context, noDocker error) (string, error) {
	var known *problem.Problem
	if errors.As(noDocker, &known) {
		return fmt.Sprintf("%s (%s)", known.Seen, known.ID), nil
	}
	if noDocker != nil {
		return noDocker.Error(), nil
	}
	refs, err := e.Settings.NodeImages(e.usualNodeImage())
	if err != nil {
		return "", err
	}
	for _, ref := range refs {
		if obstacle, err := e.imageObstacle(ctx, ref); obstacle != "" || err != nil {
			return obstacle, err
		}
	}
	return "", nil
}
