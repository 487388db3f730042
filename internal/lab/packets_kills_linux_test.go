package lab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
)

// survivesKills kills each kind of process of the lab while requests are sent: sm:status names what was killed, and
// after sm:install requests through the gateway are answered.
func (b *bench) survivesKills(address string) {
	b.t.Helper()
	stop := b.load(address)
	defer stop()
	const gateway, envoy = mesh.GatewayLabel + "=", "/usr/local/bin/envoy"
	for _, victim := range []struct {
		what, namespace, selector, program string
		byItself                           bool // requests are answered without sm:install too
	}{
		{"the gateway's Envoy", "default", gateway + names.Gateway, envoy, true},
		// The gateway may hold on to the waypoint's endpoint as not ready; sm:install ends that.
		{"the waypoint's Envoy", "default", gateway + names.Waypoint, envoy, false},
		{"the node proxy of appb's node", names.Istio, "app=ztunnel", "/usr/local/bin/ztunnel", true},
		{"appb's go-httpbin", "default", "app=appb", "/bin/go-httpbin", true},
	} {
		pod := b.podFor(victim.namespace, victim.selector)
		killed := kill(b.t, b.process(pod.Name, victim.program))
		took := func() time.Duration { return time.Since(killed).Round(10 * time.Millisecond) }
		if victim.byItself {
			b.answers(http.MethodGet, address, http.StatusOK)
			b.t.Logf("%s killed: the next good request %s later", victim.what, took())
		}
		b.eventually(victim.what+" is started again", func() bool {
			return b.restarts(&pod) > pod.Status.ContainerStatuses[0].RestartCount
		})
		says(b.t, "status", oneSpace(b.do("status", b.Status)), "pod "+pod.Name+" restarted ", " ago: container ")
		b.do("install", b.Install)
		b.answers(http.MethodGet, address, http.StatusOK)
		b.t.Logf("%s killed, sm:status, sm:install: the next good request %s later", victim.what, took())
	}
	b.waitsForBackOff(address)
	for _, component := range []string{"istiod", "podrunner"} {
		killed := kill(b.t, b.pid(component))
		says(b.t, "status", b.do("status", b.Status), component+" does not run")
		b.dumped(component+" killed", nil, component+" does not run")
		b.do("install", b.Install)
		b.answers(http.MethodGet, address, http.StatusOK)
		b.t.Logf("%s killed, sm:status, sm:install: the next good request %s later", component,
			time.Since(killed).Round(10*time.Millisecond))
	}
}

// waitsForBackOff kills appb again: it is started again only after a pause, for which sm:status gives the reason and
// sm:install waits. The pause doubles each time, until it is long enough for what is asked in it.
func (b *bench) waitsForBackOff(address string) {
	b.t.Helper()
	pod := b.podFor("default", "app=appb")
	waits := func() bool {
		state := b.status(&pod).State
		return state.Waiting != nil && state.Waiting.Reason == "CrashLoopBackOff"
	}
	for seen := false; !seen; {
		kill(b.t, b.process(pod.Name, "/bin/go-httpbin"))
		b.eventually("appb waits before it is started again", waits)
		last, previous := b.log(pod.Name, false), b.log(pod.Name, true)
		status := oneSpace(b.do("status", b.Status))
		if seen = waits(); !seen {
			b.eventually("appb is started again", func() bool { return b.status(&pod).Ready })
			continue
		}
		if last == "" || last != previous {
			b.t.Errorf("while it waits, the log is %q and the previous one %q", last, previous)
		}
		says(b.t, "status", status, "lesson apps on, not ready", "container httpbin ended with exit code 137")
	}
	began := time.Now()
	b.do("install", b.Install)
	b.answers(http.MethodGet, address, http.StatusOK)
	b.t.Logf("appb's go-httpbin in a pause before its restart, sm:install: the next good request %s later",
		time.Since(began).Round(10*time.Millisecond))
}

// log is the log of a pod's only container, or that of its run before.
func (b *bench) log(pod string, previous bool) string {
	b.t.Helper()
	raw, err := b.kube().CoreV1().Pods("default").GetLogs(pod, &corev1.PodLogOptions{Previous: previous}).
		DoRaw(b.t.Context())
	if err != nil {
		b.t.Error(err)
	}
	return string(raw)
}

// load sends requests through the gateway until the returned function is called, which logs how many were answered.
func (b *bench) load(address string) (stop func()) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	var good, bad atomic.Int64
	var senders sync.WaitGroup
	client := &http.Client{Timeout: 2 * time.Second}
	for range 2 {
		senders.Go(func() {
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/status/200",
					http.NoBody)
				if err != nil {
					return
				}
				request.Host = names.Host
				response, err := client.Do(request)
				if err == nil {
					_ = response.Body.Close()
				}
				if err == nil && response.StatusCode == http.StatusOK {
					good.Add(1)
				} else if ctx.Err() == nil {
					bad.Add(1)
				}
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	return func() {
		cancel()
		senders.Wait()
		b.t.Logf("meanwhile %d requests were answered with 200, and %d were not", good.Load(), bad.Load())
	}
}

// podFor is the pod that a selector chooses; of several, the one on appb's node.
func (b *bench) podFor(namespace, selector string) corev1.Pod {
	b.t.Helper()
	list := func(namespace, selector string) []corev1.Pod {
		pods, err := b.kube().CoreV1().Pods(namespace).List(b.t.Context(), metav1.ListOptions{LabelSelector: selector})
		if err != nil || len(pods.Items) == 0 {
			b.t.Fatalf("no pod has %s: %v", selector, err)
		}
		return pods.Items
	}
	pods, node := list(namespace, selector), list("default", "app=appb")[0].Spec.NodeName
	if i := slices.IndexFunc(pods, func(pod corev1.Pod) bool { return pod.Spec.NodeName == node }); i > 0 {
		return pods[i]
	}
	return pods[0]
}

// status is the present status of a pod's first container.
func (b *bench) status(pod *corev1.Pod) corev1.ContainerStatus {
	b.t.Helper()
	now, err := b.kube().CoreV1().Pods(pod.Namespace).Get(b.t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	return now.Status.ContainerStatuses[0]
}

func (b *bench) restarts(pod *corev1.Pod) int32 { return b.status(pod).RestartCount }

// process finds the process of a pod that runs a program.
func (b *bench) process(pod, program string) int {
	b.t.Helper()
	for _, pid := range descendants(b.t, b.pid("podrunner")) {
		command, err := os.ReadFile(procPath(pid, "cmdline"))
		if name, _, _ := strings.Cut(string(command), "\x00"); err != nil || name != program {
			continue
		}
		environment, err := os.ReadFile(procPath(pid, "environ"))
		if err == nil && slices.Contains(strings.Split(string(environment), "\x00"), "HOSTNAME="+pod) {
			return pid
		}
	}
	b.t.Fatalf("no process of pod %s runs %s", pod, program)
	return 0
}

// kill kills a process, waits until the kernel has ended it, and gives the time of the kill.
func kill(t *testing.T, pid int) time.Time {
	t.Helper()
	killed := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		state, err := os.ReadFile(procPath(pid, "stat"))
		if err != nil {
			return killed
		}
		// The first thread of a process that was killed can end before the others, which wait for the pods' end.
		threads, _ := os.ReadDir(procPath(pid, "task"))
		if strings.Contains(string(state), ") Z ") && len(threads) <= 1 {
			return killed
		}
		<-time.After(5 * time.Millisecond)
	}
}

// nothingInherited wants that no program in a pod has a file or socket of the pod runner open: only the pipes of its
// own input and output.
func (b *bench) nothingInherited() {
	b.t.Helper()
	runner := b.pid("podrunner")
	inside := descendants(b.t, runner) // the first is the runner itself, in its namespaces
	own := map[string]bool{}
	for _, to := range openFiles(inside[0]) {
		own[to] = strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "/") && to != "/dev/null"
	}
	if len(own) == 0 {
		b.t.Fatal("the pod runner's open files cannot be read")
	}
	for _, pid := range inside[1:] {
		command, _ := os.ReadFile(procPath(pid, "cmdline"))
		for fd, to := range openFiles(pid) {
			if own[to] {
				b.t.Errorf("process %d, %q, has the pod runner's %s open as %s", pid, command, to, fd)
			}
		}
	}
}

// openFiles gives what a process has open, by its descriptors.
func openFiles(pid int) map[string]string {
	found := map[string]string{}
	entries, err := os.ReadDir(procPath(pid, "fd"))
	if err != nil {
		return found
	}
	for _, entry := range entries {
		if to, err := os.Readlink(procPath(pid, fmt.Sprintf("fd/%s", entry.Name()))); err == nil {
			found[entry.Name()] = to
		}
	}
	return found
}
