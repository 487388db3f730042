package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/ui"
)

// Status prints what there is: provider, nodes, components, lessons. It changes nothing, and exits with 0 also where
// something is not ready.
func Status(ctx context.Context, env *session.Env) error {
	s, err := session.Open(ctx, env, session.MayBeAbsent)
	if err != nil {
		return err
	}
	ctx, cancel := s.Deadline(ctx)
	defer cancel()
	if s.Unloadable != nil {
		s.Tell("SM_BUNDLE is ignored: its images cannot be loaded into the nodes of this cluster")
	}
	s = s.OnlyKnown()
	table := ui.Table{Header: []string{"WHAT", "STATE", "DETAIL"}}
	table.Add(s.Info.Provider+" "+s.Info.Name, string(s.Info.State), s.Info.Summary())
	for _, node := range s.Info.Nodes {
		state := "ready"
		if !node.Running {
			state = "not running"
		}
		table.Add("node "+node.Name, state, node.Role+" "+node.InternalIP)
	}
	next := nothingInstalled(s)
	known := next == ""
	if known {
		s, known, next = addContents(ctx, s, &table)
	}
	if known {
		addRestarts(ctx, s, &table)
	}
	if err := table.Write(s.Out); err != nil {
		return err
	}
	if known {
		s.TellSubstitutes(ctx)
		tellSimulated(s)
	}
	s.Tell("%s", next)
	return nil
}

// Of restarts, sm:status shows the latest ones, and none that is long past.
const (
	restartsShown = 5
	restartsSince = time.Hour
)

// addRestarts adds a row for each container of the lab's pods that has ended and was started again lately: a pod that
// is ready again does not show it otherwise. What cannot be read is left out: the other rows say what does not answer.
func addRestarts(ctx context.Context, s *session.Session, table *ui.Table) {
	client, err := s.Connect(ctx)
	if err != nil {
		return
	}
	var found []apply.Restart
	for _, namespace := range labNamespaces(s.Config.Namespace) {
		list, err := client.Kube().CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			continue
		}
		pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool {
			return namespace == s.Config.Namespace && !ofLessons(&pod)
		})
		found = append(found, apply.ReadPods(ctx, client.Kube(), namespace, pods).
			Restarts(time.Now().Add(-restartsSince))...)
	}
	slices.SortStableFunc(found, func(a, b apply.Restart) int { return b.Ended.Compare(a.Ended) })
	for _, restart := range found[:min(len(found), restartsShown)] {
		table.Add("pod "+restart.Pod.Name, "restarted",
			fmt.Sprintf("%s ago: %s", time.Since(restart.Ended).Round(time.Second), restart.Reason))
	}
	if more := len(found) - restartsShown; more > 0 {
		table.Add("other pods", "restarted", fmt.Sprintf("%d more containers within the last hour", more))
	}
}

// ofLessons tells the pods of lessons from others in their namespace.
func ofLessons(pod *corev1.Pod) bool {
	_, ofGateway := pod.Labels[mesh.GatewayLabel]
	return ofGateway || slices.Contains([]string{names.AppA, names.AppB}, pod.Labels["app"])
}

// tellSimulated says why the pods of a lab only seem to run, where that is so.
func tellSimulated(s *session.Session) {
	if runner, is := s.Provider().(cluster.PodRunner); is {
		if why := runner.WhyNoPackets(); why != "" {
			s.Tell("pods are only reported as running, and no packets flow: %s", why)
		}
	}
}

// nothingInstalled says what to do where there is nothing to show beyond the cluster itself, or gives "".
func nothingInstalled(s *session.Session) string {
	switch s.Info.State {
	case cluster.Absent:
		return "next: mage sm:install"
	case cluster.Partial:
		return "next: mage sm:install, which removes what is there and creates the cluster again"
	case cluster.Foreign:
		return "the lab neither uses nor deletes this cluster; choose another name with SM_CLUSTER"
	case cluster.Unreachable:
		return fmt.Sprintf("next: see that the cluster of context %s runs, or choose another: "+
			"kubectl config use-context", s.Info.Context)
	}
	var known *problem.Problem
	if !s.Traits.Owned && s.Found.RecordKnown && errors.As(s.Installed(), &known) {
		return fmt.Sprintf("%s; %s", known.Seen, strings.Join(known.Advice, " "))
	}
	return ""
}

// degradedLimit bounds the requests to a cluster that is known to be degraded.
const degradedLimit = 3 * time.Second

// addContents adds the rows of the components and the lessons, where the cluster answers. known says whether it does.
func addContents(
	ctx context.Context, s *session.Session, table *ui.Table,
) (found *session.Session, known bool, next string) {
	degraded := s.Info.State == cluster.Stopped || s.Info.State == cluster.NotReady
	broken := ""
	switch {
	case s.Found.Err != nil:
		table.Add("record", "unknown", s.Found.Err)
		broken = "install"
	case s.Info.State != cluster.Ready:
		limited, cancel := ctx, context.CancelFunc(func() {})
		if degraded {
			limited, cancel = context.WithTimeoutCause(ctx, degradedLimit,
				fmt.Errorf("no answer within %s", degradedLimit))
		}
		reread, err := s.Reread(limited)
		cancel()
		if err != nil { // one row for all: twenty rows with the same error say no more
			table.Add("components", "unknown", err)
			table.Add("lessons", "unknown", "they are read from the same API server")
			return s, false, "next: mage sm:install, which starts what does not run"
		}
		s = reread
	}
	s = s.With(session.AsInstalled)
	next = addComponents(ctx, s, table, broken)
	if degraded {
		next = "mage sm:install, which starts what does not run"
	}
	return s, true, "next: " + next
}

// addComponents adds a row for each component and each lesson, and gives what to type next: the target that repairs the
// first thing that is not ready, or the next lesson. broken is the target that repairs what was found before.
func addComponents(ctx context.Context, s *session.Session, table *ui.Table, broken string) (next string) {
	for _, step := range s.Inspect(ctx, installPlan(s, newCharts(s.Env, s.Provider()))) {
		if broken == "" && stateOf(step) != "ready" {
			broken = "install"
		}
		if step.ID != "cluster" {
			table.Add(step.ID, stateOf(step), reasonOf(step))
		}
	}
	if s.Found.Err != nil {
		table.Add("lessons", "unknown", s.Found.Err)
	} else {
		for _, l := range lesson.All() {
			state, detail := lessonRow(ctx, s, l)
			if broken == "" && state != lessonReady && state != lessonOff {
				broken = l.Name
			}
			table.Add("lesson "+l.Name, state, detail)
		}
	}
	if broken != "" {
		return fmt.Sprintf("mage sm:%s, which repairs what is not ready", broken)
	}
	return lesson.NextTarget(s.Found)
}

// The states of a lesson that has nothing to repair.
const (
	lessonOff   = "off"
	lessonReady = "on, ready"
)

// lessonRow says whether a lesson is on and, if so, whether it is in force, or the first reason why not.
func lessonRow(ctx context.Context, s *session.Session, l lesson.Lesson) (state, detail string) {
	l, on, err := l.AsRecorded(s.Found)
	switch {
	case err != nil:
		return "on, unknown", err.Error()
	case !on:
		return lessonOff, l.Off
	}
	for _, step := range s.Inspect(ctx, l.PlanToApply(s)) {
		if what := stateOf(step); what != "ready" {
			return "on, " + what, l.On + ": " + reasonOf(step)
		}
	}
	return lessonReady, l.On
}

func stateOf(step engine.StepStatus) string {
	switch {
	case step.Err != nil:
		return "unknown"
	case step.Status.Done:
		return "ready"
	default:
		return "not ready"
	}
}

func reasonOf(step engine.StepStatus) string {
	if step.Err != nil {
		return step.Err.Error()
	}
	return step.Status.Message
}
