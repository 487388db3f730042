package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
	"ambientlab/specs"
)

// engineTimeout bounds the first questions to the Docker engine. Whether it is there at all it has to say sooner; see
// docker.Ping.
const engineTimeout = 5 * time.Second

// choose makes the provider that the settings ask for. For kind it asks the Docker engine whether it is there and
// which cgroup version it has, because the kind configuration depends on it.
func (l *Lab) choose(ctx context.Context) error {
	if l.provider != nil {
		return nil
	}
	switch l.Settings.Provider {
	case ProviderExisting:
		return l.chooseExisting(ctx)
	case ProviderEmbedded:
		return l.chooseEmbedded(ctx)
	case providerAuto:
		return l.chooseAuto(ctx)
	}
	info, err := l.dockerInfo(ctx)
	if err != nil {
		return l.adviseBeside(err)
	}
	config, err := l.kindConfig(info)
	if err != nil {
		return err
	}
	l.provider = cluster.NewKind(cluster.KindOptions{
		Name: l.Settings.Cluster, Config: config, NodeImage: l.Settings.NodeImage, Kubeconfig: l.Settings.Kubeconfig,
		Docker: l.docker, Endpoint: l.endpoint,
	})
	return nil
}

// dockerEngine is what the lab asks of a Docker engine; *client.Client is one.
type dockerEngine interface {
	cluster.Docker
	bundle.ImageEngine
	Info(ctx context.Context, options client.InfoOptions) (client.SystemInfoResult, error)
	DistributionInspect(ctx context.Context, image string, options client.DistributionInspectOptions) (client.DistributionInspectResult, error)
}

// dockerInfo connects to the Docker engine, once.
func (l *Lab) dockerInfo(ctx context.Context) (client.SystemInfoResult, error) {
	parent := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, engineTimeout, errors.New("the Docker engine does not answer"))
	defer cancel()
	if l.docker == nil {
		api, endpoint, err := docker.New(docker.SystemEnv())
		if err != nil {
			return client.SystemInfoResult{}, err
		}
		if err := docker.Ping(ctx, api, endpoint); err != nil {
			return client.SystemInfoResult{}, err
		}
		l.docker, l.endpoint = api, endpoint
	}
	info, err := l.docker.Info(ctx, client.InfoOptions{})
	if err != nil && ctx.Err() != nil && parent.Err() == nil {
		return info, problem.New(problem.DockerNotRunning, context.Cause(ctx), "the Docker engine at %s does not say within %s what it is", l.endpoint, engineTimeout)
	}
	if err != nil {
		return info, fmt.Errorf("asking the Docker engine about itself: %w", docker.Explain(ctx, err, l.endpoint))
	}
	return info, nil
}

// kindConfig is the configuration of the kind cluster, in which every node has its image.
func (l *Lab) kindConfig(info client.SystemInfoResult) ([]byte, error) {
	raw, err := l.ownKindConfig()
	if err != nil {
		return nil, err
	}
	if raw == nil {
		raw, err = specs.Render("kind.yaml", map[string]any{
			"Workers": l.Settings.Workers, "WorkerList": make([]struct{}, l.Settings.Workers),
			"CgroupV1": info.Info.CgroupVersion == "1",
		})
		if err != nil {
			return nil, err
		}
	}
	return cluster.WithNodeImage(raw, l.usualNodeImage())
}

// ownKindConfig reads and checks SM_KIND_CONFIG; nil means that there is none.
func (l *Lab) ownKindConfig() ([]byte, error) {
	if l.Settings.KindConfig == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(l.Settings.KindConfig)
	if err != nil {
		return nil, problem.New(problem.SettingFileUnreadable, err, "SM_KIND_CONFIG=%s", l.Settings.KindConfig)
	}
	if err := cluster.CheckConfig(raw); err != nil {
		return nil, fmt.Errorf("SM_KIND_CONFIG=%s: %w", l.Settings.KindConfig, err)
	}
	return raw, nil
}

// nodeImages are the images that the kind nodes run: SM_NODE_IMAGE for all of them, else those that SM_KIND_CONFIG
// names, and usual for the nodes for which it names none.
func (l *Lab) nodeImages(usual string) ([]string, error) {
	if l.Settings.NodeImage != "" {
		return []string{l.Settings.NodeImage}, nil
	}
	raw, err := l.ownKindConfig()
	if err != nil {
		return nil, err
	}
	if raw, err = cluster.WithNodeImage(raw, usual); err != nil {
		return nil, err
	}
	return cluster.NodeImages(raw)
}

// usualNodeImage is the node image where no setting names one: the bundle's, else the pinned one.
func (l *Lab) usualNodeImage() string {
	if l.bundle != nil {
		for _, image := range l.bundle.Images() {
			if isNodeImage(image.Ref) {
				return image.Ref
			}
		}
	}
	return DefaultNodeImage
}

func isNodeImage(ref string) bool {
	return strings.HasPrefix(strings.TrimPrefix(ref, "docker.io/"), "kindest/node:")
}

func (l *Lab) clusterStep(id string, needs ...string) engine.Step {
	timeout := patient
	if l.embedded != nil {
		timeout = 0 // its programs may have to be built first; the target's own deadline is enough
	}
	step := cluster.Step(l.provider, id, timeout)
	step.Needs = needs
	return step
}

func (l *Lab) clusterTitle() string { return l.provider.Traits().Title }

// tuneStep raises the inotify limits of every node. They are the host's: one kernel serves all nodes. An existing
// cluster is tuned where all of its nodes are on this host.
func (l *Lab) tuneStep(id string, needs ...string) engine.Step {
	if l.Settings.Provider == ProviderEmbedded || l.docker == nil {
		return engine.Step{}
	}
	nodes := func(ctx context.Context) ([]node.Node, error) {
		found, err := l.nodesHere(ctx)
		if !found.all() {
			return nil, err
		}
		return found.here, err
	}
	step := node.Step(id, "inotify limits of every node", needs, l.docker, nodes, node.Inotify())
	step.Timeout = quick
	return step
}
