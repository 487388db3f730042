package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/problem"
)

// workload is a Deployment that one process replaces.
type workload struct {
	component             string // the process
	namespace, deployment string
}

// pod is the name under which the process knows itself.
func (w workload) pod() string { return w.deployment + "-process" }

func workloads() []workload {
	return []workload{
		{metallb, "metallb-system", "controller"},
		{istiod, "istio-system", "istiod"},
	}
}

// processName is the ConfigMap in which a workload's settings stand in the cluster in place of its Deployment: what is
// to run is asked of the API server, as it is for everything else.
func processName(component string) string { return "ambientlab-process-" + component }

const processKey = "process.json"

// settings are how a Deployment wants its program run.
type settings struct {
	Args []string          `json:"args"`
	Env  map[string]string `json:"env"`
}

// settingsOf takes them out of a Deployment with one container. What refers to the pod is filled in; limits of
// resources have no meaning for a process and are left out.
func settingsOf(deployment *appsv1.Deployment, w workload) settings {
	pod := deployment.Spec.Template.Spec
	fields := map[string]string{
		"metadata.name": w.pod(), "metadata.namespace": w.namespace, "spec.serviceAccountName": pod.ServiceAccountName,
	}
	container := pod.Containers[0]
	found := settings{Args: slices.Clone(container.Args), Env: map[string]string{}}
	for _, variable := range container.Env {
		switch from := variable.ValueFrom; {
		case from == nil:
			found.Env[variable.Name] = variable.Value
		case from.FieldRef != nil && fields[from.FieldRef.FieldPath] != "":
			found.Env[variable.Name] = fields[from.FieldRef.FieldPath]
		}
	}
	return found
}

// Started tells whether a workload's process runs with the settings that are in the cluster, and if not, why.
func (e *Embedded) Started(ctx context.Context, component string) (running bool, reason string, err error) {
	s, err := e.load()
	if err != nil {
		return false, "there is no embedded control plane", nil
	}
	known, err := e.record(component)
	if errors.Is(err, fs.ErrNotExist) {
		return false, component + " was not started yet", nil
	}
	if err != nil {
		return false, "", err
	}
	if !known.alive() {
		return false, e.epitaph(component), nil
	}
	asked, err := e.settings(ctx, component)
	if err != nil || asked == nil {
		return false, component + " runs, and its settings are not in the cluster", err
	}
	if e.isOld(ctx, component, known) {
		return false, component + " was built from other sources than those of this checkout", nil
	}
	c := e.workload(s, component, known.Path, *asked)
	if known.Spec != c.spec.digest() {
		return false, component + " runs with other settings than those in the cluster", nil
	}
	if err := c.ready(ctx); err != nil {
		return false, fmt.Sprintf("%s is not ready: %v", component, err), nil
	}
	return true, fmt.Sprintf("process %d on this machine", known.PID), nil
}

// Start makes sure that a workload's process runs with the settings that are in the cluster.
func (e *Embedded) Start(ctx context.Context, component string) error {
	// Before the lock, since it can take minutes.
	if _, _, err := e.build(ctx, []string{component}); err != nil {
		return err
	}
	unlock, err := e.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := e.load()
	if err != nil {
		return problem.New(problem.ClusterNone, err, "embedded cluster %q does not exist", e.opts.Name)
	}
	asked, err := e.settings(ctx, component)
	if err != nil {
		return err
	}
	if asked == nil {
		return problem.New(problem.NotReady, nil,
			"the cluster does not say how %s is to be run: ConfigMap %s is missing", component, processName(component))
	}
	return e.startWorkload(ctx, s, component, *asked)
}

func (e *Embedded) startWorkload(ctx context.Context, s *state, component string, asked settings) error {
	path, err := e.path(ctx, component)
	if err != nil {
		return err
	}
	c := e.workload(s, component, path, asked)
	return e.ensure(ctx, c.spec, c.ready)
}

func (e *Embedded) path(ctx context.Context, component string) (string, error) {
	_, paths, err := e.build(ctx, []string{component})
	return paths[component], err
}

// Stop ends a workload's process.
func (e *Embedded) Stop(ctx context.Context, component string) error {
	unlock, err := e.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return e.stop(ctx, component, false)
}

// restartWorkloads starts again those that were started before and do not run.
func (e *Embedded) restartWorkloads(ctx context.Context, s *state) error {
	for _, w := range workloads() {
		if !exists(e.recordFile(w.component)) {
			continue
		}
		asked, err := e.settings(ctx, w.component)
		if err != nil {
			return err
		}
		if asked == nil {
			// It was deleted from the cluster while the process did not run.
			if err := e.stop(ctx, w.component, false); err != nil {
				return err
			}
			continue
		}
		if err := e.startWorkload(ctx, s, w.component, *asked); err != nil {
			return err
		}
	}
	return nil
}

// settings reads a workload's settings from the cluster; nil means that it has none.
func (e *Embedded) settings(ctx context.Context, component string) (*settings, error) {
	config, err := e.RESTConfig(ctx)
	if err != nil {
		return nil, err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	var object *corev1.ConfigMap
	for _, w := range workloads() {
		if w.component == component {
			object, err = kube.CoreV1().ConfigMaps(w.namespace).Get(ctx, processName(component), metav1.GetOptions{})
		}
	}
	if apierrors.IsNotFound(err) || (err == nil && object == nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading how %s is to be run: %w", component, err)
	}
	asked := &settings{}
	if err := json.Unmarshal([]byte(object.Data[processKey]), asked); err != nil {
		return nil, fmt.Errorf("reading how %s is to be run: ConfigMap %s: %w", component, object.Name, err)
	}
	return asked, nil
}

// workload describes a workload's process: as its Deployment says, but for where it listens and how it finds the
// cluster. Of a flag that is given twice, the later one counts.
func (e *Embedded) workload(s *state, component, path string, asked settings) process {
	env := e.environment()
	for name, value := range asked.Env {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	c := process{
		spec: spec{
			Name: component, Path: path, Args: slices.Clone(asked.Args), Env: env,
			Dir: filepath.Join(e.dir, "run"), Server: s.server(),
		},
		ready: func(context.Context) error { return nil },
	}
	listen := func(port string) string { return fmt.Sprintf("127.0.0.1:%d", s.Ports[port]) }
	switch component {
	case istiod:
		c.spec.Args = append(c.spec.Args,
			"--kubeconfig="+e.componentKubeconfig(istiod),
			"--httpAddr="+listen(portIstiodHTTP), "--httpsAddr="+listen(portIstiodHook),
			"--monitoringAddr="+listen(portIstiodStat), "--secureGRPCAddr="+listen(portIstiodXDS),
			"--grpcAddr=", // not without TLS: other users of the machine reach loopback too
			"--ctrlz_port=0", "--profile=false",
		)
		// Webhooks are called by address; the name is what istiod's certificate is made for.
		c.spec.Env = append(c.spec.Env, "ISTIOD_CUSTOM_HOST=127.0.0.1", "KUBECONFIG="+e.componentKubeconfig(istiod),
			// On loopback /debug, with every proxy's configuration, would answer every user of this machine (istiod,
			// pilot/pkg/xds/debug.go). Nothing of the lab asks it.
			"ENABLE_DEBUG_ON_HTTP=false",
			// There is one istiod, and one that was killed would keep the next from its work for half a minute.
			"ENABLE_LEADER_ELECTION=false")
		c.ready = func(ctx context.Context) error {
			return answers(ctx, http.DefaultTransport, "http://"+listen(portIstiodHTTP)+"/ready")
		}
	case metallb:
		c.spec.Args = append(c.spec.Args,
			"--kubeconfig="+e.componentKubeconfig(metallb), "--webhook-mode=disabled", "--disable-cert-rotation",
			fmt.Sprintf("--port=%d", s.Ports[portMetalStat]),
			fmt.Sprintf("--health-probe-port=%d", s.Ports[portMetalProbe]),
		)
		// The secret is the speakers', which exchange it over a network that is not there.
		c.spec.Env = append(c.spec.Env, "METALLB_ML_SECRET_NAME=", "METALLB_DEPLOYMENT=",
			"METALLB_NAMESPACE=metallb-system")
		c.ready = func(ctx context.Context) error {
			return answers(ctx, http.DefaultTransport, "http://"+listen(portMetalProbe)+"/healthz")
		}
	}
	return c
}

// XDSAddress is where istiod gives out configuration, with TLS.
func (e *Embedded) XDSAddress() (string, error) { return e.portAddress(portIstiodXDS) }

// MetricsAddress is where istiod gives out metrics.
func (e *Embedded) MetricsAddress() (string, error) { return e.portAddress(portIstiodStat) }

func (e *Embedded) portAddress(port string) (string, error) {
	s, err := e.load()
	if err != nil {
		return "", problem.New(problem.ClusterNone, err, "embedded cluster %q does not exist", e.opts.Name)
	}
	return fmt.Sprintf("127.0.0.1:%d", s.Ports[port]), nil
}
