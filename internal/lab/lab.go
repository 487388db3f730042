package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"

	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/apply"
	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/lb"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/ui"
	"ambientlab/internal/upstream"
)

// Lab is one named cluster and everything that the targets put into it. Its connections are made when a step first
// needs them: before the first step there may be no cluster to connect to.
type Lab struct {
	Settings Settings

	out      io.Writer
	view     ui.Renderer
	engine   *engine.Engine
	upstream *upstream.Upstream
	docker   dockerEngine
	endpoint docker.Endpoint
	provider cluster.Provider
	embedded *embedded.Embedded // the provider, where it is that one
	existing *cluster.Existing  // the same
	named    bool               // the existing cluster has been named to the user
	noDocker error              // why an existing cluster's nodes cannot be looked for on this host
	whole    bool               // sm:lab runs, so the provider may be chosen for the user
	words    wording            // of what is to be typed next
	stateDir string             // where embedded control planes lie; empty means the user's own place
	bundle   *bundle.Bundle

	installed installed // what lookForParts found
	removing  bool      // plans are made to be taken back: of all that is installed, whatever the settings say now

	mu     sync.Mutex
	client *apply.Client
	none   error // a plan is made for a cluster that does not exist yet, which this says
	charts map[string]charts
}

// New makes a lab from settings: data goes to out, what happens is shown on view. It opens the bundle, so that a wrong one is refused
// before anything is touched, and connects to nothing else.
func New(settings Settings, out io.Writer, view ui.Renderer) (*Lab, error) {
	l := &Lab{Settings: settings, out: out, view: view, upstream: upstream.New("")}
	l.engine = &engine.Engine{Sink: view}
	if settings.Bundle != "" {
		opened, err := bundle.Open(settings.Bundle)
		if err != nil {
			return nil, err
		}
		l.bundle = opened
	}
	return l, nil
}

// Close ends what the lab opened.
func (l *Lab) Close() error {
	var errs []error
	if l.bundle != nil {
		errs = append(errs, l.bundle.Close())
	}
	return errors.Join(errs...)
}

// cluster gives the client of the lab's cluster, connecting at the first call that succeeds.
func (l *Lab) connect(ctx context.Context) (*apply.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.none != nil {
		return nil, l.none
	}
	if l.client != nil {
		return l.client, nil
	}
	config, err := l.provider.RESTConfig(ctx)
	if err != nil {
		return nil, err
	}
	client, err := apply.New(config, l.Settings.Cluster, apply.Options{
		Kinds:     mesh.Kinds(),
		Generated: func(obj client.Object) bool { return mesh.Generated(obj) || lb.Generated(obj) },
	})
	if err != nil {
		return nil, err
	}
	l.client = client
	return client, nil
}

// kubeconfig is the file that kind and the embedded provider write: the first that KUBECONFIG names, or kubectl's.
func (l *Lab) kubeconfig() string {
	if l.Settings.Kubeconfig != "" {
		return filepath.SplitList(l.Settings.Kubeconfig)[0]
	}
	return clientcmd.RecommendedHomeFile
}

// mustExist refuses to go on where the target needs a cluster and there is none, somebody else's, or one whose processes
// have ended: a lesson would wait for them until its time is up.
func (l *Lab) mustExist(ctx context.Context) (cluster.Info, error) {
	info, err := l.provider.Inspect(ctx)
	if err != nil {
		return info, err
	}
	name := fmt.Sprintf("%s cluster %q", info.Provider, info.Name)
	switch info.State {
	case cluster.Absent:
		err = problem.New(problem.ClusterNone, nil, "%s does not exist", name).With(l.beside()...)
	case cluster.Partial:
		err = problem.New(problem.ClusterNone, nil, "%s is not whole: %s", name, info.Message)
	case cluster.Stopped:
		err = problem.New(problem.ClusterStopped, nil, "%s does not run: %s", name, info.Message)
	default:
		err = refuse(info)
	}
	return info, err
}

// refuse refuses a cluster that the lab must not touch, or cannot.
func refuse(info cluster.Info) error {
	switch info.State {
	case cluster.Foreign:
		return problem.New(problem.ClusterForeign, nil, "%s cluster %q: %s", info.Provider, info.Name, info.Message).
			With(fmt.Sprintf("To use it as it is: kubectl config use-context %s, and INSTALL_KIND=n.", info.Context))
	case cluster.Unreachable:
		return problem.New(problem.ClusterUnreachable, nil, "the cluster of context %s at %s does not answer: %s", info.Context, info.Server, info.Message)
	}
	return nil
}
