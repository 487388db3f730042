package apply

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"
)

// logTail and logBytes bound what is read of a log to find its last line.
const (
	logTail  = 20
	logBytes = 16 << 10
)

// lineLength bounds a line that is quoted from a log or an event, in characters.
const lineLength = 400

// lastWords says how a container ended, and what it logged last.
func (c *Client) lastWords(ctx context.Context, pod *corev1.Pod, s corev1.ContainerStatus) string {
	text := "keeps exiting: container " + s.Name
	t, previous := s.State.Terminated, false
	if t == nil {
		t, previous = s.LastTerminationState.Terminated, true
	}
	if t != nil {
		text += fmt.Sprintf(" ended with exit code %d", t.ExitCode)
		if t.Reason != "" && t.Reason != "Error" {
			text += " (" + t.Reason + ")"
		}
	} else if w := s.State.Waiting; w != nil {
		text += ": " + w.Message
	}
	if s.RestartCount > 0 {
		text += fmt.Sprintf(", %d restarts", s.RestartCount)
	}
	words := c.lastLines(ctx, pod, s.Name, previous)
	if words == "" && t != nil {
		words = oneLine(t.Message)
	}
	if words != "" {
		text += ", last words: " + words
	}
	return text
}

// quoted is how many lines of a log are quoted: the last one is often a supervisor's
// "exited with status 1", and the one before it the reason.
const quoted = 2

// lastLines gives the last lines of a container's log that are not blank.
func (c *Client) lastLines(ctx context.Context, pod *corev1.Pod, container string, previous bool) string {
	stream, err := c.kube.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{
		Container: container, Previous: previous, TailLines: ptr.To[int64](logTail), LimitBytes: ptr.To[int64](logBytes),
	}).Stream(ctx)
	if err != nil {
		return ""
	}
	defer stream.Close()
	data, err := io.ReadAll(io.LimitReader(stream, logBytes))
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if text := oneLine(line); text != "" {
			lines = append(lines, text)
		}
	}
	return strings.Join(lines[max(0, len(lines)-quoted):], " | ")
}

// warning gives the latest warning about an object, as "reason: message".
func (c *Client) warning(ctx context.Context, namespace, kind, name string) string {
	events := c.warnings(ctx, namespace, kind, name)
	if len(events) == 0 {
		return ""
	}
	return events[0].Reason + ": " + oneLine(events[0].Message)
}

// warnings lists the warnings about an object, the latest first.
func (c *Client) warnings(ctx context.Context, namespace, kind, name string) []corev1.Event {
	about := fields.Set{"involvedObject.kind": kind, "involvedObject.name": name, "type": corev1.EventTypeWarning}
	list, err := c.kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: about.AsSelector().String()})
	if err != nil {
		return nil
	}
	// Asked for already; a server that ignores a selector must not mislead.
	events := slices.DeleteFunc(list.Items, func(e corev1.Event) bool {
		return e.Type != corev1.EventTypeWarning || e.InvolvedObject.Kind != kind || e.InvolvedObject.Name != name
	})
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return lastSeen(b).Compare(lastSeen(a)) })
	return events
}

// lastSeen is when an event last happened: each of the API's generations of events
// keeps that in another field.
func lastSeen(e corev1.Event) time.Time {
	if e.Series != nil {
		return e.Series.LastObservedTime.Time
	}
	if !e.LastTimestamp.IsZero() {
		return e.LastTimestamp.Time
	}
	return cmp.Or(e.EventTime.Time, e.CreationTimestamp.Time)
}

// oneLine makes a quotation of a text: one line, not endless.
func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > lineLength {
		return string(runes[:lineLength]) + "…"
	}
	return text
}
