package kubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/podrunner/internal/config"
	"ambientlab/podrunner/internal/network"
	"ambientlab/podrunner/internal/sandbox"
)

// run is one run of a container.
type run struct {
	process Process
	env     []string
	dir     string
	hosts   string // the content of its /etc/hosts
	began   time.Time

	mu    sync.Mutex
	execs map[Process]bool
}

// add notes a program that was started in the container in addition to its own; remove forgets it.
func (r *run) add(p Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.execs[p] = true
}

func (r *run) remove(p Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.execs, p)
}

// killExecs ends the programs other than the container's own.
func (r *run) killExecs() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.execs {
		_ = p.Signal(syscall.SIGKILL)
	}
}

// repeat runs a container again and again, as its restart policy asks, until life ends. up, where there is one, is
// closed when the container has started for the first time.
func (w *worker) repeat(life context.Context, c *containerState, policy corev1.RestartPolicy, up chan struct{}) {
	var pauses backOff
	for {
		ran, code := w.runOnce(life, c, up)
		if life.Err() != nil || policy == corev1.RestartPolicyNever ||
			policy == corev1.RestartPolicyOnFailure && code == 0 {
			return
		}
		if wait := pauses.pause(ran); wait > 0 {
			w.event(corev1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s", c.spec.Name)
			w.change(func(*podState) {
				c.last = c.state
				c.state = waiting(
					crashLoop,
					fmt.Sprintf("back-off %s restarting failed container=%s", wait, c.spec.Name),
				)
			})
			if !pause(life, wait) {
				w.change(func(*podState) { c.state = c.last })
				return
			}
		}
		w.change(func(*podState) {
			if c.state.Terminated != nil {
				c.last = c.state
			}
			c.restarts++
		})
	}
}

// runOnce runs a container once and gives how long it ran and its exit code.
func (w *worker) runOnce(life context.Context, c *containerState, up chan struct{}) (ran time.Duration, code int) {
	began := time.Now()
	r, logs, err := w.start(life, c)
	if err != nil {
		if life.Err() == nil {
			w.k.Log.Warn("starting a container failed", "pod", w.name(), "container", c.spec.Name, "error", err)
			w.event(corev1.EventTypeWarning, "Failed", "Error: %v", err)
		}
		w.terminated(c, began, 128, 0, "StartError", err.Error())
		return 0, 128
	}
	w.event(corev1.EventTypeNormal, "Started", "Started container %s", c.spec.Name)
	probing, stopProbing := context.WithCancelCause(life)
	var probes sync.WaitGroup
	probes.Go(func() { w.probeAll(probing, stopProbing, c, r, up) })
	why := w.await(life, probing, c, r)
	stopProbing(nil)
	r.killExecs()
	exit, signal := r.process.Exit()
	probes.Wait()
	logs()
	reason := "Completed"
	if exit != 0 {
		reason = "Error"
	}
	w.terminated(c, r.began, exit, signal, reason, why)
	return time.Since(r.began), exit
}

// terminated notes the end of a container.
func (w *worker) terminated(c *containerState, began time.Time, code, signal int, reason, message string) {
	w.mu.Lock()
	delete(w.running, c.spec.Name)
	w.mu.Unlock()
	w.change(func(*podState) {
		c.ready, c.started = false, false
		c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: int32(code), Signal: int32(signal), Reason: reason, Message: message,
			StartedAt: metav1.NewTime(began), FinishedAt: metav1.Now(), ContainerID: c.id,
		}}
	})
}

// start makes a container's root and starts its program. The returned function ends its log.
func (w *worker) start(ctx context.Context, c *containerState) (*run, func(), error) {
	pod := w.described()
	image, known := w.k.Config.Find(c.spec.Image)
	if !known {
		return nil, nil, fmt.Errorf("there is no program for image %s", c.spec.Image)
	}
	services := w.k.allServices()
	env, err := environment(ctx, pod, c.spec, image.Environment, serviceEnvironment(pod, services), w.node(), w.k)
	if err != nil {
		return nil, nil, err
	}
	mounts, err := w.mountsOf(pod, c.spec, env)
	if err != nil {
		return nil, nil, err
	}
	root := sandbox.Root{Image: image, Files: map[string]string{}}
	for _, m := range mounts {
		source := filepath.Join(m.source, filepath.Clean("/"+m.sub))
		if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) && m.sub != "" {
			if err := os.MkdirAll(source, 0o755); err != nil {
				return nil, nil, err
			}
		}
		root.Mounts = append(root.Mounts, sandbox.Mount{Source: source, Path: m.path, ReadOnly: m.readOnly})
	}
	r := &run{env: list(env), dir: image.WorkingDirectory, execs: map[Process]bool{}, began: time.Now()}
	if c.spec.WorkingDir != "" {
		r.dir = c.spec.WorkingDir
	}
	r.hosts = network.Hosts(pod.Namespace, hostname(pod), pod.Status.PodIP, services)
	for path, content := range systemFiles(pod.Namespace) {
		root.Files[path] = content
	}
	root.Files["/etc/hosts"] = r.hosts
	if err := w.sandbox.MakeRoot(c.spec.Name, root); err != nil {
		return nil, nil, err
	}
	args := arguments(c.spec, image, env)
	if len(args) == 0 {
		return nil, nil, fmt.Errorf("neither the container nor its image says what to run")
	}
	log, err := newLog(w.k.logFile(pod, c.spec.Name, c.restarts), time.Now)
	if err != nil {
		return nil, nil, err
	}
	stdout, stderr := log.stream("stdout"), log.stream("stderr")
	r.process, err = w.sandbox.Start(
		sandbox.Command{Container: c.spec.Name, Args: args, Env: r.env, Dir: r.dir, Stdout: stdout, Stderr: stderr},
	)
	if err != nil {
		_ = log.Close()
		return nil, nil, err
	}
	w.change(func(*podState) {
		w.running[c.spec.Name] = r
		c.id = containerID(pod, c)
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(r.began)}}
		c.started = c.spec.StartupProbe == nil
		c.ready = c.started && c.spec.ReadinessProbe == nil && (!c.init || c.sidecar)
	})
	return r, func() {
		_ = stdout.Close()
		_ = stderr.Close()
		_ = log.Close()
	}, nil
}

// arguments are what a container runs: its own command and args, or the image's.
func arguments(container *corev1.Container, image config.Image, env map[string]string) []string {
	lookup := func(name string) (string, bool) {
		value, known := env[name]
		return value, known
	}
	command, args := expandAll(container.Command, lookup), expandAll(container.Args, lookup)
	if len(command) == 0 {
		command = image.Entrypoint
		if len(args) == 0 {
			args = image.Command
		}
	}
	return append(append([]string{}, command...), args...)
}

// systemFiles are the files of a container's root that every image has. The names of Services are in /etc/hosts; no
// server answers for others, which resolv.conf must nevertheless name.
func systemFiles(namespace string) map[string]string {
	return map[string]string{
		"/etc/resolv.conf": fmt.Sprintf(
			"search %s.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.1\noptions ndots:5 "+
				"timeout:1 attempts:1\n",
			namespace,
		),
		"/etc/nsswitch.conf": "hosts: files dns\n",
		"/etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\n" +
			"nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n",
		"/etc/group": "root:x:0:\nnobody:x:65534:\n",
	}
}

// await returns when the container's process has ended: by itself, because life has ended, or because it failed its
// liveness probe. The text says why it was ended.
func (w *worker) await(life, probing context.Context, c *containerState, r *run) string {
	select {
	case <-r.process.Ended():
		return ""
	case <-probing.Done():
	}
	if life.Err() == nil { // probeAll has given up on it
		w.event(corev1.EventTypeNormal, "Killing", "Container %s failed its probe, will be restarted", c.spec.Name)
		w.stop(c, r, w.grace())
		return context.Cause(probing).Error()
	}
	switch cause := context.Cause(life); {
	case errors.Is(cause, errDeleted) || errors.Is(cause, errOthersEnded):
		w.event(corev1.EventTypeNormal, "Killing", "Stopping container %s", c.spec.Name)
		w.stop(c, r, w.grace())
	default: // the runner ends, or the pod was removed
		_ = r.process.Signal(syscall.SIGKILL)
		<-r.process.Ended()
	}
	return ""
}

// grace is how long the pod's containers may take to end.
func (w *worker) grace() time.Duration {
	pod := w.current()
	seconds := int64(30)
	for _, value := range []*int64{pod.Spec.TerminationGracePeriodSeconds, pod.DeletionGracePeriodSeconds} {
		if value != nil {
			seconds = *value
		}
	}
	return time.Duration(seconds) * time.Second
}

// stop ends a container: its preStop hook, SIGTERM, and SIGKILL when the grace period is over.
func (w *worker) stop(c *containerState, r *run, grace time.Duration) {
	limit, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if grace > 0 {
		if c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil {
			if err := w.hook(limit, c, r, c.spec.Lifecycle.PreStop); err != nil {
				w.event(corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
			}
		}
		_ = r.process.Signal(syscall.SIGTERM)
	}
	select {
	case <-r.process.Ended():
	case <-limit.Done():
		_ = r.process.Signal(syscall.SIGKILL)
		<-r.process.Ended()
	}
}

// hook runs a lifecycle hook.
func (w *worker) hook(ctx context.Context, c *containerState, r *run, handler *corev1.LifecycleHandler) error {
	switch {
	case handler.Exec != nil:
		code, output, err := w.exec(ctx, c.spec.Name, r, handler.Exec.Command)
		if err == nil && code != 0 {
			err = fmt.Errorf("exit code %d: %.1000s", code, output)
		}
		return err
	case handler.HTTPGet != nil:
		return probeHTTP(ctx, c.spec, handler.HTTPGet, w.described().Status.PodIP, w.k.Runtime.DialProbe)
	case handler.Sleep != nil:
		select {
		case <-r.process.Ended():
		default:
			pause(ctx, time.Duration(handler.Sleep.Seconds)*time.Second)
		}
	}
	return nil
}

// exec runs a command in a container and gives its exit code and output.
func (w *worker) exec(ctx context.Context, container string, r *run, command []string) (int, string, error) {
	var output bytes.Buffer
	code, err := w.attach(ctx, r,
		sandbox.Command{Container: container, Args: command, Stdout: &output, Stderr: &output})
	return code, output.String(), err
}

// attach runs a command in a container, with the container's environment and folder. It ends with ctx, and with the
// container.
func (w *worker) attach(ctx context.Context, r *run, command sandbox.Command) (int, error) {
	w.mu.Lock()
	made := w.sandbox
	w.mu.Unlock()
	if made == nil {
		return 0, errNoContainer
	}
	command.Env, command.Dir = slices.Concat(command.Env, r.env), r.dir
	process, err := made.Start(command)
	if err != nil {
		return 0, err
	}
	r.add(process)
	defer r.remove(process)
	select {
	case <-process.Ended():
	case <-ctx.Done():
		_ = process.Signal(syscall.SIGKILL)
		<-process.Ended()
		return 0, context.Cause(ctx)
	case <-r.process.Ended():
		_ = process.Signal(syscall.SIGKILL)
		<-process.Ended()
	}
	code, _ := process.Exit()
	return code, nil
}

// probeAll probes a container: first whether it has started, then whether it is ready and alive. fail ends the
// container.
func (w *worker) probeAll(
	ctx context.Context,
	fail context.CancelCauseFunc,
	c *containerState,
	r *run,
	up chan struct{},
) {
	prober := func(probe *corev1.Probe) func(context.Context) error {
		exec := func(ctx context.Context, command []string) (int, string, error) {
			return w.exec(ctx, c.spec.Name, r, command)
		}
		return prober(w.current(), c.spec, probe, w.described().Status.PodIP, w.k.Runtime.DialProbe, exec)
	}
	if probe := c.spec.StartupProbe; probe != nil {
		watch(ctx, probe, false, prober(probe), func(good bool, why error) bool {
			if good {
				w.change(func(*podState) { c.started, c.ready = true, c.spec.ReadinessProbe == nil })
				return false
			}
			w.event(corev1.EventTypeWarning, "Unhealthy", "Startup probe failed: %v", why)
			fail(fmt.Errorf("startup probe failed: %w", why))
			return false
		})
		if ctx.Err() != nil {
			return
		}
	}
	if up != nil {
		select {
		case <-up:
		default:
			close(up)
		}
	}
	if c.spec.Lifecycle != nil && c.spec.Lifecycle.PostStart != nil {
		if err := w.hook(ctx, c, r, c.spec.Lifecycle.PostStart); err != nil && ctx.Err() == nil {
			fail(fmt.Errorf("postStart hook failed: %w", err))
			return
		}
	}
	var probes sync.WaitGroup
	defer probes.Wait()
	if probe := c.spec.ReadinessProbe; probe != nil {
		probes.Go(func() {
			watch(ctx, probe, false, prober(probe), func(good bool, why error) bool {
				if !good && why != nil {
					w.event(corev1.EventTypeWarning, "Unhealthy", "Readiness probe failed: %v", why)
				}
				w.change(func(*podState) { c.ready = good })
				return true
			})
		})
	}
	if probe := c.spec.LivenessProbe; probe != nil {
		probes.Go(func() {
			watch(ctx, probe, true, prober(probe), func(good bool, why error) bool {
				if !good {
					w.event(corev1.EventTypeWarning, "Unhealthy", "Liveness probe failed: %v", why)
					fail(fmt.Errorf("liveness probe failed: %w", why))
				}
				return good
			})
		})
	}
}
