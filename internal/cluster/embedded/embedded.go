package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/cluster"
	"ambientlab/internal/problem"
	"ambientlab/internal/source"
)

// Provider is the name of this package's provider.
const Provider = cluster.ProviderEmbedded

// Programs is where the programs come from; *source.Builder is one.
type Programs interface {
	// Binaries gives the paths of programs by name, and builds those that are not there yet.
	Binaries(ctx context.Context, names []string) (map[string]string, error)
	// Path is where Binary puts a program as it would be built now; it builds nothing.
	Path(ctx context.Context, name string) (string, error)
	// ProgramsOf names the programs of an image, Unpack gives all that is in it, and Envoy fetches upstream Envoy if
	// HasEnvoy does not tell that it is there.
	ProgramsOf(ref string) ([]string, error)
	Unpack(ctx context.Context, ref string) (source.Unpacked, error)
	Envoy(ctx context.Context) (string, error)
	HasEnvoy() bool
}

// Options describe the control plane wanted.
type Options struct {
	// Name is the lab's name.
	Name string
	// Workers is how many nodes there are besides the control plane's.
	Workers int
	// Later are the components that Start will be asked for: their programs are built with the others, so that a first
	// build is one piece of which it can be said how much is still to come.
	Later []string
	// StateDir is where labs keep their folders, one each; empty means DefaultStateDir.
	StateDir string
	// Kubeconfig is one file or several, as KUBECONFIG is written; empty means ~/.kube/config.
	Kubeconfig string
	// Packets says whether pods run: PacketsAuto, PacketsOn or PacketsOff; empty means PacketsAuto.
	Packets string
	// Ztunnel is a ztunnel program of this machine, to run in place of the node proxy that is built from source.
	Ztunnel string
	// Addons are the telemetry add-ons that are wanted.
	Addons []string
	// Programs is called when a program is first needed. progress hears of builds.
	Programs func(progress func(program, message string)) (Programs, error)
}

// Embedded is a control plane of the lab's own, of processes on this machine.
type Embedded struct {
	opts  Options
	dir   string
	after func(time.Duration) <-chan time.Time
	// starter starts a process; a seam for tests.
	starter func(spec spec, log string) (int, <-chan error, error)
	builds  *builds
	// claims keep the ports of a new lab from other labs. They end with this process: by then the lab listens on them.
	claims []io.Closer
}

// New describes a control plane; it touches nothing.
func New(opts Options) (*Embedded, error) {
	if opts.StateDir == "" {
		dir, err := DefaultStateDir(os.Getenv)
		if err != nil {
			return nil, err
		}
		opts.StateDir = dir
	}
	return &Embedded{
		opts: opts, dir: filepath.Join(opts.StateDir, opts.Name), after: time.After, starter: start,
		builds: &builds{},
	}, nil
}

// DefaultStateDir is ambientlab/embedded in the user's folder for state: not in the cache, which people empty, because
// without the files in it the processes could not be found any more.
func DefaultStateDir(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ambientlab", "embedded"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding the folder for the embedded control plane: %w", err)
	}
	return filepath.Join(home, ".local", "state", "ambientlab", "embedded"), nil
}

// Dir is the folder with all files of this lab.
func (e *Embedded) Dir() string { return e.dir }

// Exists tells whether there is such a lab, whatever its state.
func (e *Embedded) Exists() bool { return exists(e.dir) }

// ContextName is what the user's kubeconfig calls the lab.
func (e *Embedded) ContextName() string { return Provider + "-" + e.opts.Name }

// inspectTimeout bounds the look at the API server.
const inspectTimeout = 5 * time.Second

// Inspect looks at the processes first, and where all run, at the API server and the nodes.
func (e *Embedded) Inspect(ctx context.Context) (cluster.Info, error) {
	info := cluster.Info{
		Provider: Provider, Name: e.opts.Name, Context: e.ContextName(), State: cluster.Absent,
		Packets: e.Packets(),
	}
	if _, err := os.Stat(e.dir); errors.Is(err, fs.ErrNotExist) {
		info.Message = "there is no embedded control plane " + e.opts.Name
		return info, nil
	} else if err != nil {
		return info, fmt.Errorf("looking for the embedded control plane: %w", err)
	}
	info.Exists, info.Owned = true, true
	state, err := e.load()
	if unreadable(err) {
		return info, fmt.Errorf("looking at the embedded control plane: %w", err)
	}
	if err != nil || !state.Complete {
		info.State, info.Message = cluster.Partial, "its creation was not finished"
		return info, nil
	}
	info.Server = state.server()
	info.Nodes = e.nodes(state)
	for i := range info.Nodes {
		info.Nodes[i].Running = e.runs(apiServer) && e.runs(podRunner)
	}
	dead, err := e.dead()
	if err != nil {
		return info, err
	}
	if len(dead) > 0 {
		info.State, info.Message = cluster.Stopped, strings.Join(dead, "; ")
		return info, nil
	}
	config, err := e.RESTConfig(ctx)
	if err != nil {
		return info, err
	}
	limited, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	version, reason, err := cluster.LookAtNodes(limited, config)
	switch {
	case err != nil && ctx.Err() != nil:
		return info, context.Cause(ctx)
	case err != nil:
		info.State, info.Message = cluster.NotReady, "its API server does not answer: "+err.Error()
		return info, nil
	}
	info.Version = version
	old := e.outdated(ctx)
	switch {
	case reason != "":
		info.State, info.Message = cluster.NotReady, reason
	case len(old) > 0:
		info.State, info.Message = cluster.Outdated,
			"built from other sources than those of this checkout: "+strings.Join(old, ", ")
	case !e.kubeconfig().Linked(e.ContextName(), info.Server):
		info.State, info.Message = cluster.Unlinked, "the kubeconfig has no entry for it"
	default:
		info.State = cluster.Ready
	}
	return info, nil
}

// Stopped describes the processes that ran once and do not any more, each with its log's last lines. It is for a run
// that failed: that one of them died is most often why.
func (e *Embedded) Stopped() []string { return e.stopped(componentNames()) }

func (e *Embedded) stopped(components []string) []string {
	var stopped []string
	for _, name := range components {
		if known, err := e.record(name); err == nil && !known.alive() {
			stopped = append(stopped, e.epitaph(name))
		}
	}
	return stopped
}

// dead describes the processes that should run and do not, by their logs' last lines.
func (e *Embedded) dead() ([]string, error) {
	var dead []string
	for _, name := range componentNames() {
		known, err := e.record(name)
		if errors.Is(err, fs.ErrNotExist) {
			if optional(name) {
				continue
			}
			dead = append(dead, name+" was never started")
			continue
		}
		if err != nil {
			return nil, err
		}
		if !known.alive() {
			dead = append(dead, e.epitaph(name))
		}
	}
	return dead, nil
}

// runs tells whether a component's process is there.
func (e *Embedded) runs(name string) bool {
	known, err := e.record(name)
	return err == nil && known.alive()
}

// epitaph quotes the last lines of a process that died.
func (e *Embedded) epitaph(name string) string {
	if lines := lastLines(e.log(name), quotedLines); lines != "" {
		return fmt.Sprintf("%s does not run; its log ends with:\n%s", name, lines)
	}
	return name + " does not run, and its log is empty"
}

// RESTConfig connects to the API server as its administrator.
func (e *Embedded) RESTConfig(context.Context) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(e.dir, adminKubeconfig))
	if err != nil {
		return nil, problem.New(problem.ClusterNone, err, "embedded cluster %q does not exist", e.opts.Name)
	}
	config.QPS = -1 // its own flow control is the API server's matter
	return config, nil
}

// CollectLogs copies the log of every process into dir.
func (e *Embedded) CollectLogs(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	logs, err := filepath.Glob(filepath.Join(e.dir, "logs", "*.log*"))
	if err != nil {
		return fmt.Errorf("looking for logs: %w", err)
	}
	var errs []error
	for _, path := range logs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(path)), content, 0o644)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("copying logs: %w", err)
	}
	return nil
}

func (e *Embedded) kubeconfig() cluster.Kubeconfig { return cluster.NewKubeconfig(e.opts.Kubeconfig) }
