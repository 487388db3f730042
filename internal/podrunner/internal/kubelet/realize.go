package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	retryFirst = 200 * time.Millisecond
	retryMost  = 5 * time.Second
	// refreshInterval is how often volumes that follow objects of the API are brought up to date, as a kubelet does.
	refreshInterval = time.Minute
)

// realize runs the pod until life ends, or until all of its containers have ended and will not restart; then it
// waits for the pod's removal.
func (w *worker) realize(life context.Context) {
	pod := w.current()
	w.change(func(s *podState) {
		for _, c := range s.containers {
			c.adopt(pod)
		}
	})
	if w.retry(life, "FailedCreatePodSandBox", "SandboxCreating", w.connect) &&
		w.retry(life, "FailedMount", "ContainerCreating", w.fill) {
		refreshing, stop := context.WithCancel(life)
		var refresher sync.WaitGroup
		refresher.Go(func() { w.refresh(refreshing) })
		w.runAll(life)
		stop()
		refresher.Wait()
	}
	w.disconnect()
	<-life.Done()
}

// retry repeats a step of the pod's start until it succeeds. Why it does not is seen in the pod's status and events.
func (w *worker) retry(life context.Context, event, reason string, step func(context.Context) error) bool {
	wait, last := retryFirst, ""
	for life.Err() == nil {
		err := step(life)
		if err == nil {
			return true
		}
		if life.Err() != nil {
			return false
		}
		if err.Error() != last {
			last = err.Error()
			w.k.Log.Warn("starting a pod failed, will try again", "pod", w.name(), "error", err)
			w.event(corev1.EventTypeWarning, event, "%v", err)
			w.change(func(s *podState) {
				for _, c := range s.containers {
					if c.state.Waiting != nil {
						c.state.Waiting.Message = last
					}
				}
			})
		}
		if !pause(life, wait) {
			return false
		}
		wait = min(2*wait, retryMost)
	}
	return false
}

// connect makes the pod's network, and in the mesh has the node proxy serve it.
func (w *worker) connect(life context.Context) error {
	pod := w.current()
	if w.sandbox == nil {
		taken, err := w.takeAddress(life)
		if err != nil {
			return err
		}
		made, err := w.k.Runtime.NewSandbox(string(pod.UID), hostname(pod), w.k.folder(pod), taken)
		if err != nil {
			w.addresses.Release(taken)
			return err
		}
		w.mu.Lock()
		w.sandbox, w.inMesh, w.state.address = made, w.k.ambient(pod), taken.String()
		w.mu.Unlock()
	}
	if w.inMesh {
		if err := w.sandbox.Redirect(); err != nil {
			return err
		}
		if err := w.k.Proxies.Add(life, pod.Spec.NodeName, pod, w.sandbox.Network()); err != nil {
			return err
		}
		w.mu.Lock()
		w.annotations[redirection] = "enabled"
		w.mu.Unlock()
	} else if err := w.sandbox.SetServices(w.k.reachable()); err != nil {
		return err
	}
	w.change(func(s *podState) { s.connected = true })
	return nil
}

// hostname is what the pod's containers see as the name of their host.
func hostname(pod *corev1.Pod) string {
	name := pod.Spec.Hostname
	if name == "" {
		name = pod.Name
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

// disconnect removes what connect made.
func (w *worker) disconnect() {
	w.mu.Lock()
	made := w.sandbox
	w.sandbox = nil
	address, err := netip.ParseAddr(w.state.address)
	w.state.connected = false
	w.mu.Unlock()
	if made == nil {
		return
	}
	if w.inMesh {
		w.k.Proxies.Remove(w.pod.Spec.NodeName, string(w.pod.UID))
	}
	if closing := made.Close(); closing != nil {
		w.k.Log.Warn("removing a pod's network and files failed", "pod", w.name(), "error", closing)
	}
	if err == nil {
		w.addresses.Release(address)
	}
	w.touch()
}

// fill fills the pod's volumes.
func (w *worker) fill(life context.Context) error {
	return w.volumes.fill(life, w.described(), w.specOf, w.node())
}

// described is the pod with the addresses that it has, whether or not they are in its status yet.
func (w *worker) described() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	pod := w.pod.DeepCopy()
	pod.Status.PodIP, pod.Status.HostIP = w.state.address, w.state.host
	return pod
}

// refresh brings volumes up to date until ctx ends.
func (w *worker) refresh(ctx context.Context) {
	for pause(ctx, refreshInterval) {
		if err := w.fill(ctx); err != nil && ctx.Err() == nil {
			w.k.Log.Warn("bringing a pod's volumes up to date failed", "pod", w.name(), "error", err)
		}
	}
}

// runAll runs the init containers one after the other, with sidecars left running, and then the others side by side.
func (w *worker) runAll(life context.Context) {
	pod := w.current()
	withOthers, endOthers := context.WithCancelCause(life)
	defer endOthers(nil)
	var sidecars, others sync.WaitGroup
	failed := false
	for _, c := range w.state.containers {
		switch {
		case life.Err() != nil || failed:
		case c.sidecar:
			up := make(chan struct{})
			sidecars.Go(func() { w.repeat(withOthers, c, corev1.RestartPolicyAlways, up) })
			select {
			case <-up:
			case <-life.Done():
			}
		case c.init:
			policy := pod.Spec.RestartPolicy
			if policy == corev1.RestartPolicyAlways {
				policy = corev1.RestartPolicyOnFailure
			}
			w.repeat(life, c, policy, nil)
			w.mu.Lock()
			failed = c.state.Terminated == nil || c.state.Terminated.ExitCode != 0
			w.mu.Unlock()
		default:
			others.Go(func() { w.repeat(life, c, pod.Spec.RestartPolicy, nil) })
		}
	}
	others.Wait()
	endOthers(errOthersEnded)
	sidecars.Wait()
	w.change(func(s *podState) { s.over = true })
}

var errOthersEnded = errors.New("the pod's containers have ended")

// mountsOf are the mounts of a container, with the pod's volumes as their sources.
func (w *worker) mountsOf(pod *corev1.Pod, container *corev1.Container, env map[string]string) ([]mount, error) {
	var mounts []mount
	for _, m := range container.VolumeMounts {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
			return nil, fmt.Errorf("the pod has no volume %q", m.Name)
		}
		source := w.volumes.path(pod, m.Name)
		sub := m.SubPath
		if m.SubPathExpr != "" {
			sub = expand(
				m.SubPathExpr,
				func(name string) (string, bool) { value, known := env[name]; return value, known },
			)
		}
		mounts = append(mounts, mount{source: source, sub: sub, path: m.MountPath, readOnly: m.ReadOnly})
	}
	return mounts, nil
}

type mount struct {
	source, sub, path string
	readOnly          bool
}
