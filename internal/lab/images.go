package lab

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"ambientlab/internal/apply"
	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
	"ambientlab/internal/upstream"
	"ambientlab/specs"
)

// prepare refuses what cannot work before anything is touched: no engine, somebody else's cluster, files of the user's
// that cannot be read, values that Istio's charts do not take, a bundle that lacks images or cannot be loaded, a Gateway
// API of somebody else's that is too old.
func (l *Lab) prepare(ctx context.Context) error {
	if err := l.choose(ctx); err != nil {
		return err
	}
	if err := l.sayWhich(); err != nil {
		return err
	}
	if _, err := l.userObjects(); err != nil {
		return err
	}
	if _, err := l.renderIstio(ctx, l.bundleSubstitutes()); err != nil {
		if l.Settings.IstioValues != "" {
			return fmt.Errorf("with SM_ISTIO_VALUES=%s: %w", l.Settings.IstioValues, err)
		}
		return err
	}
	if err := l.checkManifests(ctx); err != nil {
		return err
	}
	if l.bundle != nil {
		if err := l.checkBundle(ctx); err != nil {
			return err
		}
	}
	if l.Settings.Provider == ProviderEmbedded { // it is nobody else's, and its nodes are simulated
		return nil
	}
	if err := l.checkCluster(ctx); err != nil {
		return err
	}
	return l.checkGatewayAPI(ctx)
}

// checkCluster refuses a cluster that the lab must not touch, and nodes that the settings do not go with.
func (l *Lab) checkCluster(ctx context.Context) error {
	if l.Settings.Provider == ProviderKind {
		if err := l.checkNodeImages(); err != nil {
			return err
		}
	}
	info, err := l.provider.Inspect(ctx)
	if err != nil {
		return err
	}
	if err := refuse(info); err != nil {
		return err
	}
	return l.checkNodes(info)
}

// checkNodeImages refuses a node image whose tag names a Kubernetes that Istio does not support. What a tag does not
// say, the cluster is asked once it is there.
func (l *Lab) checkNodeImages() error {
	refs, err := l.nodeImages(l.usualNodeImage())
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if tag := nodeImageTag.FindStringSubmatch(ref); tag != nil {
			if err := cluster.CheckVersion("node image "+ref, tag[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// nodeImageTag finds the version in a reference such as kindest/node:v1.36.4@sha256:...
var nodeImageTag = regexp.MustCompile(`:(v\d+\.\d+\.\d+)(@.*)?$`)

// attach is what every target after sm:install begins with: the provider, a cluster that exists, on a cluster that the
// lab did not make the lab, and what was installed.
func (l *Lab) attach(ctx context.Context) error {
	if err := l.choose(ctx); err != nil {
		return err
	}
	if err := l.sayWhich(); err != nil {
		return err
	}
	info, err := l.mustExist(ctx)
	if err != nil {
		return err
	}
	if l.Settings.Provider == ProviderExisting {
		if err := l.mustBeInstalled(ctx, info); err != nil {
			return err
		}
		if l.bundle != nil {
			if err := l.needContainers(sortNodes(info)); err != nil { // nor did sm:install load it
				return err
			}
		}
	}
	// Like the steps that follow, this sits out a restart of the API server. A cluster that is known not to run was
	// refused before: nobody should wait for that.
	return apply.Retry(ctx, restartPatience, l.adoptRecord)
}

// podImages lists the images that the lab's pods need under these settings, from the rendered manifests themselves.
func (l *Lab) podImages(ctx context.Context) ([]string, error) {
	rendered, err := l.renderIstio(ctx, l.bundleSubstitutes())
	if err != nil {
		return nil, err
	}
	var all objects
	for _, component := range upstream.Components() {
		all = append(all, rendered[component]...)
	}
	if l.Settings.UseMetalLB() {
		list, err := l.upstream.MetalLB(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	for _, addon := range l.Settings.Addons {
		list, err := l.upstream.Addon(ctx, addon, l.Settings.Addons...)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	for _, file := range []string{"lessons/apps/appa.yaml", "lessons/apps/appb.yaml"} {
		list, err := specs.Objects(file, l.images())
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	users, err := l.userObjects()
	if err != nil {
		return nil, err
	}
	for _, obj := range users {
		all = append(all, obj.Unstructured)
	}
	return upstream.Images(l.adapt(all)), nil
}

// checkBundle refuses a bundle that lacks an image of the lab: the install would hang on it half an hour later.
func (l *Lab) checkBundle(ctx context.Context) error {
	refs, err := l.podImages(ctx)
	if err != nil {
		return err
	}
	if l.Settings.Provider == ProviderKind {
		nodes, err := l.nodeImages(l.usualNodeImage())
		if err != nil {
			return err
		}
		refs = append(refs, nodes...)
	}
	var missing []string
	for _, ref := range refs {
		if _, err := l.bundle.Lookup(ref); err != nil {
			missing = append(missing, ref)
		}
	}
	if len(missing) > 0 {
		return problem.New(problem.ImageMissing, nil, "SM_BUNDLE=%s lacks %s", l.Settings.Bundle, strings.Join(missing, ", ")).
			With("If a telemetry add-on is what it lacks, leave that add-on out: SM_ADDONS=prometheus, for one.")
	}
	return nil
}

func (l *Lab) nodeImageStep(id string) engine.Step {
	if l.bundle == nil || l.Settings.Provider != ProviderKind {
		return engine.Step{}
	}
	return engine.Step{
		ID: id, Title: "Node image from the bundle", Timeout: patient,
		Check: func(ctx context.Context) (engine.Status, error) {
			refs, err := l.nodeImages(l.usualNodeImage())
			if err != nil {
				return engine.Status{}, err
			}
			for _, ref := range refs {
				held, err := bundle.NodeImageLoaded(ctx, l.docker, l.bundle, ref)
				if err != nil || !held {
					return engine.Status{Message: ref}, err
				}
			}
			return engine.Status{Done: true, Message: strings.Join(refs, ", ")}, nil
		},
		Do: func(ctx context.Context) error {
			refs, err := l.nodeImages(l.usualNodeImage())
			if err != nil {
				return err
			}
			for _, ref := range refs {
				if _, err := bundle.LoadNodeImage(ctx, l.docker, l.bundle, ref); err != nil {
					return err
				}
				engine.Changed(ctx, engine.Change{Object: "Docker image " + ref, Action: engine.Create})
			}
			return nil
		},
		Explain: func() []string { return []string{"docker load -i <archive of the node image>"} },
	}
}

// imagesStep streams the bundle's images into every node at once.
func (l *Lab) imagesStep(id string, needs ...string) engine.Step {
	if l.bundle == nil || l.Settings.Provider == ProviderEmbedded {
		return engine.Step{}
	}
	return engine.Step{
		ID: id, Title: "Images from the bundle into every node", Needs: needs, Timeout: patient,
		Check: func(ctx context.Context) (engine.Status, error) {
			refs, containers, err := l.toLoad(ctx)
			if err != nil {
				return engine.Status{}, err
			}
			lacks, err := bundle.MissingInNodes(ctx, l.docker, l.bundle, refs, containers)
			if err != nil {
				return engine.Status{}, err
			}
			missing := 0
			for _, refs := range lacks {
				missing += len(refs)
			}
			return engine.Status{Done: missing == 0, Message: fmt.Sprintf("%d images, %d of %d copies missing", len(refs), missing, len(refs)*len(containers))}, nil
		},
		Do: func(ctx context.Context) error {
			refs, containers, err := l.toLoad(ctx)
			if err != nil {
				return err
			}
			reports, err := bundle.LoadNodes(ctx, l.docker, l.bundle, refs, containers)
			for _, done := range reports {
				if done.Err != nil {
					continue // err names it
				}
				engine.Changed(ctx, engine.Change{Object: "node " + done.Node, Action: engine.Update, Detail: fmt.Sprintf("%d images", len(done.Loaded))})
			}
			return err
		},
		Explain: func() []string {
			name := l.Settings.Cluster
			if l.Settings.Provider == ProviderExisting {
				name = "<its name>"
			}
			return []string{"kind load image-archive --name " + name + " <bundle as archive>"}
		},
	}
}

func (l *Lab) toLoad(ctx context.Context) (refs, containers []string, err error) {
	if refs, err = l.podImages(ctx); err != nil {
		return nil, nil, err
	}
	found, err := l.nodesHere(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := l.needContainers(found); err != nil {
		return nil, nil, err
	}
	for _, n := range found.here {
		if n.Role != node.LoadBalancer {
			containers = append(containers, n.Name)
		}
	}
	return refs, containers, nil
}

// adapt leaves out what the provider brings up itself.
func (l *Lab) adapt(list objects) objects {
	adapter, ok := l.provider.(interface {
		Adapt(objects) objects
	})
	if !ok {
		return list
	}
	return adapter.Adapt(slices.Clone(list))
}
