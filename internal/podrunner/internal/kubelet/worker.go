package kubelet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"ambientlab/podrunner/internal/network"
)

// Why the work on a pod ends.
var (
	errDeleted  = errors.New("the pod is being deleted")
	errVanished = errors.New("the pod was removed from the API server")
)

const (
	// redirection is the annotation by which istio-cni tells istiod that a pod's traffic goes through the node proxy.
	// istiod sends HBONE only to such pods (istio.io/api, annotation AmbientRedirection).
	redirection = "ambient.istio.io/redirection"
	// Simulated is the annotation of a pod that runs nothing, with the reason.
	Simulated = "lab.opssec.in/simulated"
)

// worker does the work on one pod.
type worker struct {
	k         *Kubelet
	addresses *network.Addresses
	volumes   *volumes

	ended chan struct{} // closed by end
	why   error         // set before
	once  sync.Once

	mu          sync.Mutex
	pod         *corev1.Pod
	state       podState
	annotations map[string]string // to be set with the status
	running     map[string]*run   // what runs, by container
	sandbox     Sandbox
	inMesh      bool
	dirty       chan struct{}
}

func newWorker(k *Kubelet, pod *corev1.Pod) *worker {
	w := &worker{
		k: k, pod: pod, ended: make(chan struct{}), dirty: make(chan struct{}, 1),
		annotations: map[string]string{}, running: map[string]*run{},
		state: podState{host: k.hostAddress(pod.Spec.NodeName), started: time.Now()},
	}
	w.volumes = &volumes{
		dir:    k.folder(pod) + "/volumes",
		node:   k.NodeFolder(pod.Spec.NodeName),
		from:   k,
		tokens: k,
		now:    time.Now,
	}
	add := func(spec *corev1.Container, init bool) {
		c := &containerState{spec: spec, init: init, state: waiting("ContainerCreating", "")}
		c.sidecar = init && spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
		if init {
			c.state = waiting("PodInitializing", "")
		}
		w.state.containers = append(w.state.containers, c)
	}
	for i := range pod.Spec.InitContainers {
		add(&pod.Spec.InitContainers[i], true)
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i], false)
	}
	return w
}

// adopt takes over what an earlier runner said of a container: it has ended with that runner.
func (c *containerState) adopt(pod *corev1.Pod) {
	for _, statuses := range [][]corev1.ContainerStatus{
		pod.Status.InitContainerStatuses,
		pod.Status.ContainerStatuses,
	} {
		for _, had := range statuses {
			if had.Name != c.spec.Name || had.ContainerID == "" {
				continue
			}
			c.restarts, c.last = had.RestartCount+1, had.LastTerminationState
			if running := had.State.Running; running != nil {
				c.last = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					ExitCode: 137, Reason: "Error", Message: "the pod runner ended", StartedAt: running.StartedAt,
					FinishedAt: metav1.Now(), ContainerID: had.ContainerID,
				}}
			} else if had.State.Terminated != nil {
				c.last = corev1.ContainerState{Terminated: had.State.Terminated}
			}
		}
	}
}

// current is the pod as last seen.
func (w *worker) current() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// update takes note of a change of the pod.
func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	if older(pod, w.pod) {
		w.mu.Unlock()
		return
	}
	w.pod = pod
	w.mu.Unlock()
	w.touch()
	if pod.DeletionTimestamp != nil {
		w.end(errDeleted)
	}
}

// older compares the versions of an object; the watch may deliver one that a write of this runner has replaced.
func older(a, b *corev1.Pod) bool {
	x, errX := strconv.ParseUint(a.ResourceVersion, 10, 64)
	y, errY := strconv.ParseUint(b.ResourceVersion, 10, 64)
	return errX == nil && errY == nil && x < y
}

// end ends the pod's containers.
func (w *worker) end(why error) {
	w.once.Do(func() {
		w.why = why
		close(w.ended)
	})
}

// touch has the status written.
func (w *worker) touch() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// change changes what is known of the pod, and has the status written.
func (w *worker) change(f func(*podState)) {
	w.mu.Lock()
	f(&w.state)
	w.mu.Unlock()
	w.touch()
}

// run does all the work on the pod, until it is removed or ctx ends.
func (w *worker) run(ctx context.Context) {
	pod := w.current()
	life, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-w.ended:
			cancel(w.why)
		case <-stop:
		}
	}()
	if pod.DeletionTimestamp != nil {
		w.end(errDeleted)
	}
	writing, stopWriting := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() { w.write(writing) })
	switch reason := w.k.simulates(pod); {
	case finished(pod):
		<-life.Done() // an earlier runner has run it
	case reason != "":
		w.simulate(life, reason)
	default:
		w.realize(life)
	}
	stopWriting()
	writer.Wait()
	if ctx.Err() != nil {
		return // the runner ends; another one serves the pod
	}
	w.conclude(ctx)
}

// conclude removes what is left of the pod, here and on the API server.
func (w *worker) conclude(ctx context.Context) {
	if w.why != errVanished {
		w.writeStatus(ctx)
		pod := w.current()
		for {
			err := w.k.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
				GracePeriodSeconds: ptr.To(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID},
			})
			if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
				break
			}
			w.k.Log.Warn("removing a pod failed, will try again", "pod", w.name(), "error", err)
			if !pause(ctx, time.Second) {
				return
			}
		}
	}
	_ = os.RemoveAll(w.k.logFolder(w.current()))
}

func (w *worker) name() string {
	pod := w.current()
	return pod.Namespace + "/" + pod.Name
}

// write writes the status whenever it is not what the API server has.
func (w *worker) write(ctx context.Context) {
	for {
		select {
		case <-w.dirty:
		case <-ctx.Done():
			return
		}
		w.writeStatus(ctx)
	}
}

func (w *worker) writeStatus(ctx context.Context) {
	for ctx.Err() == nil {
		w.mu.Lock()
		wanted := w.pod.DeepCopy()
		wanted.Status = w.state.status(wanted, metav1.Now())
		if wanted.Annotations == nil {
			wanted.Annotations = map[string]string{}
		}
		maps.Copy(wanted.Annotations, w.annotations)
		same := equality.Semantic.DeepEqual(w.pod.Status, wanted.Status) &&
			equality.Semantic.DeepEqual(w.pod.Annotations, wanted.Annotations)
		untouched := w.state.containers == nil || finished(w.pod) && !w.state.over
		w.mu.Unlock()
		if same || untouched {
			return
		}
		written, err := w.k.Client.CoreV1().Pods(wanted.Namespace).UpdateStatus(ctx, wanted, metav1.UpdateOptions{})
		switch {
		case err == nil:
			w.update(written)
			return
		case apierrors.IsNotFound(err):
			return
		case apierrors.IsConflict(err):
			fresh, err := w.k.Client.CoreV1().Pods(wanted.Namespace).Get(ctx, wanted.Name, metav1.GetOptions{})
			if err == nil && fresh.UID == wanted.UID {
				w.update(fresh)
				continue
			}
			if apierrors.IsNotFound(err) || err == nil {
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		w.k.Log.Warn("writing a pod's status failed, will try again", "pod", w.name(), "error", err)
		if !pause(ctx, 500*time.Millisecond) {
			return
		}
	}
}

// event records an event of the pod.
func (w *worker) event(kind, reason, format string, args ...any) {
	w.k.recorder.Eventf(w.current(), kind, reason, format, args...)
}

// takeAddress gives the pod an address of its node's range: the one that it had, where it had one.
func (w *worker) takeAddress(ctx context.Context) (netip.Addr, error) {
	pod := w.current()
	for {
		if from := w.k.addressesOf(pod.Spec.NodeName); from != nil {
			w.addresses = from
			had, err := netip.ParseAddr(pod.Status.PodIP)
			if err == nil {
				// claim has taken it for this pod.
				from.Release(had)
			}
			return from.Take(had)
		}
		if !pause(ctx, 50*time.Millisecond) {
			return netip.Addr{}, context.Cause(ctx)
		}
	}
}

// setServices brings the names of Services, and the rules that lead to them, up to date in the pod.
func (w *worker) setServices(services []*corev1.Service, reachable []network.Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sandbox == nil {
		return
	}
	hosts := network.Hosts(w.pod.Namespace, w.pod.Name, w.state.address, services)
	for name, running := range w.running {
		if running.hosts == hosts {
			continue
		}
		if err := w.sandbox.WriteFile(name, "etc/hosts", hosts); err != nil {
			w.k.Log.Warn("writing /etc/hosts failed", "pod", w.pod.Name, "container", name, "error", err)
			continue
		}
		running.hosts = hosts
	}
	if w.inMesh {
		return
	}
	if err := w.sandbox.SetServices(reachable); err != nil {
		w.k.Log.Warn("writing the rules of Services failed", "pod", w.pod.Name, "error", err)
	}
}

// container finds a container's state by its name.
func (w *worker) container(name string) *containerState {
	for _, c := range w.state.containers {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

func (w *worker) specOf(name string) *corev1.Container {
	if c := w.container(name); c != nil {
		return c.spec
	}
	return nil
}

// node gives what the pod's node has.
func (w *worker) node() corev1.ResourceList {
	node, err := w.k.nodes.Get(w.current().Spec.NodeName)
	if err != nil {
		return nil
	}
	return node.Status.Allocatable
}

var errNoContainer = errors.New("no such container runs")

// find gives what runs as a container; an empty name is the pod's only or first one.
func (w *worker) find(container string) (*run, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if container == "" {
		container = w.pod.Spec.Containers[0].Name
	}
	if running := w.running[container]; running != nil {
		return running, container, nil
	}
	if _, simulated := w.annotations[Simulated]; simulated {
		return nil, container, fmt.Errorf(
			"pod %s is simulated, nothing runs in it: %s",
			w.pod.Name,
			w.annotations[Simulated],
		)
	}
	return nil, container, fmt.Errorf("container %s of pod %s: %w", container, w.pod.Name, errNoContainer)
}
