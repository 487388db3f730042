package apply

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ambientlab/internal/problem"
)

// Pods is what the API server and the kubelets say of some pods at one time.
type Pods struct {
	Items []corev1.Pod
	// Warnings are the events of type Warning of the pods' namespace, in any order.
	Warnings []corev1.Event
	// Causes maps words of a warning to the problem that it shows.
	Causes map[string]problem.Kind
	// Log gives the last lines that a container logged, of its previous run if asked; "" where they cannot be read.
	Log func(pod, container string, previous bool) string
}

// Trouble says why the pods are not ready, by the pod that says most: one with a known problem before one that is still
// starting, the newest first, since older ones may be of a template that was replaced. It is nil where every pod is
// ready, has completed or is being deleted.
func (p Pods) Trouble() *problem.Problem {
	pods := slices.Clone(p.Items)
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	var starting *problem.Problem
	for i := range pods {
		pod := &pods[i]
		if PodState(pod).Ready || pod.DeletionTimestamp != nil {
			continue
		}
		kind, reason := p.podTrouble(pod)
		found := problem.New(kind, nil, "%s %s", podName(pod), reason)
		if kind.ID != problem.NotReady.ID {
			return found
		}
		if starting == nil {
			starting = found
		}
	}
	return starting
}

// failingLimit is how long a pod may fail for the same reason before a wait for it ends. The kubelet doubles its pause
// between attempts from ten seconds: after these minutes it has tried five times, and the next attempt is minutes away.
// A cluster that adds nodes on demand has added one by then.
const failingLimit = 5 * time.Minute

// Failing is since when a wait has seen the same trouble of pods that seldom ends by itself: an image that cannot be
// pulled, a container that keeps exiting, a pod that no node has room for. Its zero value is ready to use.
type Failing struct {
	id    string
	since time.Time
}

// TooLong notes the trouble that a wait sees now, which may be nil, and says whether it has lasted for so long that the
// wait is to end.
func (f *Failing) TooLong(found *problem.Problem) bool {
	id := ""
	if found != nil {
		id = found.ID
	}
	switch id {
	case problem.ImagePull.ID, problem.CrashLoop.ID, problem.Unschedulable.ID:
	default:
		*f = Failing{}
		return false
	}
	if f.id != id {
		*f = Failing{id: id, since: time.Now()}
	}
	return time.Since(f.since) >= failingLimit
}

func podName(pod *corev1.Pod) string {
	if pod.Spec.NodeName == "" {
		return "pod " + pod.Name
	}
	return fmt.Sprintf("pod %s on node %s", pod.Name, pod.Spec.NodeName)
}

// podTrouble says why a pod is not ready.
func (p Pods) podTrouble(pod *corev1.Pod) (problem.Kind, string) {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return problem.Unschedulable, "cannot be scheduled: " + condition.Message
		}
	}
	if pod.Status.Phase == corev1.PodFailed {
		return problem.NotReady, "failed" + podFailure(pod)
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if kind, reason := p.containerTrouble(pod, s); reason != "" {
			return kind, reason
		}
	}
	for _, s := range pod.Status.ContainerStatuses {
		// Exit code 0 does not help a server: Istio's pilot-agent exits with 0 when its Envoy cannot start.
		if s.State.Terminated != nil &&
			cmp.Or(pod.Spec.RestartPolicy, corev1.RestartPolicyAlways) == corev1.RestartPolicyAlways {
			return problem.CrashLoop, p.exitReason(pod, s)
		}
	}
	reason := "is " + cmp.Or(string(pod.Status.Phase), "not seen by a kubelet yet")
	warning := latestWarning(p.Warnings, "Pod", pod.Name)
	if warning == "" {
		return problem.NotReady, reason
	}
	reason += ": " + warning
	for words, kind := range p.Causes {
		if strings.Contains(warning, words) {
			return kind, reason
		}
	}
	return problem.NotReady, reason
}

// containerTrouble says what is wrong with a container, or "" where nothing is.
func (p Pods) containerTrouble(pod *corev1.Pod, s corev1.ContainerStatus) (problem.Kind, string) {
	if w := s.State.Waiting; w != nil {
		switch w.Reason {
		case "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable":
			return problem.ImagePull, fmt.Sprintf("cannot get image %s: %s: %s", s.Image, w.Reason, p.pullError(pod, w))
		case "CrashLoopBackOff", "RunContainerError", "StartError":
			return problem.CrashLoop, p.exitReason(pod, s)
		case "ContainerCreating", "PodInitializing", "":
			return problem.Kind{}, "" // the pod's warnings say more
		default:
			return problem.NotReady,
				strings.TrimSuffix(fmt.Sprintf("waits: container %s: %s: %s", s.Name, w.Reason, w.Message), ": ")
		}
	}
	failed := s.State.Terminated != nil && s.State.Terminated.ExitCode != 0
	restarted := s.State.Running != nil && !s.Ready && s.RestartCount > 0 && s.LastTerminationState.Terminated != nil
	if failed || restarted {
		return problem.CrashLoop, p.exitReason(pod, s)
	}
	return problem.Kind{}, ""
}

// pullError gives the registry's error. While the kubelet backs off, the pod's status only says that it does; the
// attempt before is in the events.
func (p Pods) pullError(pod *corev1.Pod, w *corev1.ContainerStateWaiting) string {
	if w.Reason != "ImagePullBackOff" || strings.Contains(w.Message, "failed") {
		return w.Message
	}
	for _, event := range warningsAbout(p.Warnings, "Pod", pod.Name) {
		if event.Reason == "Failed" && strings.Contains(event.Message, "pull") {
			return oneLine(event.Message)
		}
	}
	return w.Message
}

// exitReason says how a container ended, and what it logged last.
func (p Pods) exitReason(pod *corev1.Pod, s corev1.ContainerStatus) string {
	const prefix = "keeps exiting: container "
	switch {
	case s.State.Terminated != nil:
		return prefix + p.exit(pod, s, s.State.Terminated, false)
	case s.LastTerminationState.Terminated != nil:
		return prefix + p.exit(pod, s, s.LastTerminationState.Terminated, true)
	case s.State.Waiting != nil:
		return prefix + s.Name + ": " + s.State.Waiting.Message
	}
	return prefix + s.Name
}

// exit says how a run of a container ended, and what it logged last. previous tells that another run came after it.
func (p Pods) exit(
	pod *corev1.Pod, s corev1.ContainerStatus, t *corev1.ContainerStateTerminated, previous bool,
) string {
	text := fmt.Sprintf("%s ended with exit code %d", s.Name, t.ExitCode)
	if t.Reason != "" && t.Reason != "Error" {
		text += " (" + t.Reason + ")"
	}
	switch {
	case s.RestartCount == 1:
		text += ", 1 restart"
	case s.RestartCount > 1:
		text += fmt.Sprintf(", %d restarts", s.RestartCount)
	}
	if p.Log != nil {
		if log := p.Log(pod.Name, s.Name, previous); log != "" {
			return text + ", last log lines: " + log
		}
	}
	if t.Message != "" {
		text += ": " + oneLine(t.Message)
	}
	return text
}

// Restart is the last restart of a container.
type Restart struct {
	Pod   *corev1.Pod
	Ended time.Time // when the run before ended
	// Reason names the container, and says how that run ended and how many there were.
	Reason string
}

// killed is what a signal's number is added to in the exit code of a container that a signal ended.
const killed = 128

// Restarts lists the containers whose last run before the present one ended at a time or later, the latest first. A pod
// that is being deleted has none.
func (p Pods) Restarts(since time.Time) []Restart {
	var found []Restart
	for i := range p.Items {
		pod := &p.Items[i]
		if pod.DeletionTimestamp != nil {
			continue
		}
		for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			t := s.LastTerminationState.Terminated
			if s.RestartCount == 0 || t == nil || t.FinishedAt.Time.Before(since) {
				continue
			}
			of := p
			if t.ExitCode > killed {
				of.Log = nil // what was logged last is not why it ended
			}
			found = append(found, Restart{pod, t.FinishedAt.Time, "container " + of.exit(pod, s, t, true)})
		}
	}
	slices.SortStableFunc(found, func(a, b Restart) int { return b.Ended.Compare(a.Ended) })
	return found
}

// latestWarning gives the latest warning about an object, as "reason: message".
func latestWarning(warnings []corev1.Event, kind, name string) string {
	about := warningsAbout(warnings, kind, name)
	if len(about) == 0 {
		return ""
	}
	return about[0].Reason + ": " + oneLine(about[0].Message)
}

// warningsAbout gives the warnings about an object, the latest first.
func warningsAbout(warnings []corev1.Event, kind, name string) []corev1.Event {
	about := slices.DeleteFunc(slices.Clone(warnings), func(e corev1.Event) bool {
		return e.Type != corev1.EventTypeWarning || e.InvolvedObject.Kind != kind || e.InvolvedObject.Name != name
	})
	slices.SortStableFunc(about, func(a, b corev1.Event) int { return lastSeen(b).Compare(lastSeen(a)) })
	return about
}

// lastSeen is when an event last happened. Each version of the events API keeps that in another field.
func lastSeen(e corev1.Event) time.Time {
	if e.Series != nil {
		return e.Series.LastObservedTime.Time
	}
	if !e.LastTimestamp.IsZero() {
		return e.LastTimestamp.Time
	}
	return cmp.Or(e.EventTime.Time, e.CreationTimestamp.Time)
}

// lineLength limits a line that is quoted from a log or an event, in characters.
const lineLength = 400

// oneLine puts a text on one line of limited length.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > lineLength {
		return string(runes[:lineLength]) + "…"
	}
	return text
}
