//go:build e2e && e2efull

package e2e

import (
	"context"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/docker"
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
	"ambientlab/internal/sabotage"
)

// strict is what the lab is asked for in these tests, and so what it claims.
func strict() probe.Lessons {
	return lesson.States(lesson.Apps(), lesson.Waypoint(), lesson.Fault(params.DefaultFault()), lesson.Authz("", true))
}

// TestSabotage breaks the lab in the ways in which ambient breaks silently. Every claim that is touched must come out
// refuted or inconclusive, for the right reason; put right again, it must be proven again. E2E_LAB and E2E_KUBECONFIG
// name a lab that exists and is kept.
func TestSabotage(t *testing.T) {
	l := newLab(t, "lab-sabotage")
	if standing := os.Getenv("E2E_LAB"); standing != "" {
		kubeconfig := os.Getenv("E2E_KUBECONFIG")
		l.name, l.kubeconfig = standing, kubeconfig
		l.env = []string{"SM_CLUSTER=" + standing, "KUBECONFIG=" + kubeconfig, "SM_OUTPUT=plain"}
	} else {
		t.Cleanup(func() { l.mage(t, "sm:delete") })
		l.mage(t, "sm:install")
	}
	for _, target := range []string{"sm:apps", "sm:waypoint", "sm:fault"} {
		l.mage(t, target)
	}
	l.mage(t, "sm:authz", "-strict")
	l.sabotaged(t, sabotage.All(), strict())
	t.Run("an image is replaced under its reference", l.testReplacedImage)
	t.Run("no pod starts without ztunnel", l.testNoZtunnel)
	t.Run("no API server", l.testNoAPIServer)
	for _, target := range []string{"sm:authz", "sm:fault"} {
		l.mage(t, target, "-off")
	}
	for _, target := range []string{"sm:split", "sm:l4", "sm:telemetry"} {
		l.mage(t, target)
	}
	l.sabotaged(t, append(sabotage.Further(), sabotage.Addons()...), further())
	for _, target := range []string{"sm:telemetry", "sm:l4", "sm:split"} {
		l.mage(t, target, "-off")
	}
	off := lesson.States(lesson.Apps(), lesson.Waypoint())
	l.proven(t, off, "l4-off", "split-off-appa", "split-off-gateway")
}

// further are the lessons that sm:lab leaves out, all of them.
func further() probe.Lessons {
	return lesson.States(lesson.Apps(), lesson.Waypoint(), lesson.Split(lesson.DefaultWeight), lesson.L4(false),
		lesson.Telemetry())
}

// sabotaged breaks the lab in some ways. lessons are those that are on.
func (l *lab) sabotaged(t *testing.T, ways []sabotage.Sabotage, lessons probe.Lessons) {
	_, objects := l.kube(t)
	for _, way := range ways {
		t.Run(way.Name, func(t *testing.T) {
			if err := way.Break(t.Context(), objects, "default"); err != nil {
				t.Fatal(err)
			}
			mend := func() {
				if err := way.Mend(context.WithoutCancel(t.Context()), objects, "default"); err != nil {
					t.Error(err)
				}
				if way.Target == "authz" {
					l.mage(t, "sm:authz", "-strict")
				} else {
					l.mage(t, "sm:"+way.Target)
				}
			}
			mended := false
			defer func() {
				if !mended { // the next way must not meet this one
					mend()
				}
			}()
			until(t, "the claims to be refuted", func() (bool, string) {
				var wrong string
				for _, r := range l.measure(t, lessons, way.Claims) {
					if r.Verdict == probe.Proven || !strings.Contains(strings.Join(r.Causes, "\n"), way.Cause) {
						wrong += fmt.Sprintf("want it not proven, because of %q: %s", way.Cause, describe(r))
					}
				}
				return wrong == "", wrong
			})
			words := []string{way.Cause}
			for _, change := range way.Changes {
				words = append(words, change.Object)
			}
			if !lessons.On("telemetry") { // sm:verify waits for an add-on that shows less than there is
				l.dumped(t, "verify", words...)
			}
			mended = true
			mend()
			for _, r := range l.conclusive(t, lessons, way.Claims) {
				if r.Verdict != probe.Proven {
					t.Errorf("repaired, and still: %s", describe(r))
				}
			}
		})
	}
}

// testNoAPIServer stops the API server, as the kubelet does with a static pod whose manifest is gone: the dump of what
// fails then still has what this machine and Docker know.
func (l *lab) testNoAPIServer(t *testing.T) {
	node, manifest := l.name+"-control-plane", "/etc/kubernetes/manifests/kube-apiserver.yaml"
	move := func(from, to string) {
		t.Helper()
		if _, err := docker.Exec(context.Background(), l.docker, node, "mv", from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(manifest, "/kube-apiserver.yaml")
	defer func() {
		move("/kube-apiserver.yaml", manifest)
		until(t, "the API server to answer again", func() (bool, string) {
			status := l.try(t, "sm:status")
			return status.code == 0, status.stderr
		})
	}()
	kube, _ := l.kube(t)
	until(t, "the API server to end", func() (bool, string) {
		_, err := kube.Discovery().ServerVersion()
		return err != nil, "it answers"
	})
	files := l.dumped(t, "verify", "the API server does not answer")
	for _, name := range []string{"host.txt", "docker.txt", "nodes/" + node + "/kubelet.log"} {
		if files[name] == "" {
			t.Errorf("the dump has no %s", name)
		}
	}
}

// dumped wants a target to fail, and the page of its dump to hold some words. It gives the files of the dump.
func (l *lab) dumped(t *testing.T, target string, words ...string) map[string]string {
	t.Helper()
	folder := t.TempDir()
	l.env = append(l.env, "SM_DUMP="+folder)
	defer func() { l.env = l.env[:len(l.env)-1] }()
	failed := l.try(t, "sm:"+target)
	if failed.code == 0 {
		t.Errorf("sm:%s does not fail", target)
	}
	for line := range strings.Lines(failed.stderr) {
		if strings.Contains(line, "evidence: ") {
			t.Log(line)
		}
	}
	files := unzipped(t, filepath.Join(folder, "dump-"+l.name+"-"+target+".zip"))
	page := html.UnescapeString(files["index.html"])
	for _, word := range words {
		if !strings.Contains(page, word) {
			t.Errorf("the page does not name %q", word)
		}
	}
	return files
}

// conclusive measures again what was inconclusive, as its advice says: on a loaded machine, lines of the waypoint's log
// can be late.
func (l *lab) conclusive(t *testing.T, lessons probe.Lessons, claims []string) []probe.Result {
	t.Helper()
	for range 2 {
		found := l.measure(t, lessons, claims)
		if !slices.ContainsFunc(found, func(r probe.Result) bool { return r.Verdict == probe.Inconclusive }) {
			return found
		}
	}
	return l.measure(t, lessons, claims)
}

// measure judges some claims as sm:verify does.
func (l *lab) measure(t *testing.T, lessons probe.Lessons, claims []string) []probe.Result {
	t.Helper()
	found, err := probe.Run(t.Context(), l.proofs(t, lessons, claims...))
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Claims) != len(claims) {
		t.Fatalf("of the claims %v only %d are judged", claims, len(found.Claims))
	}
	kube, _ := l.kube(t)
	left, err := kube.CoreV1().Pods("default").
		List(t.Context(), metav1.ListOptions{LabelSelector: "lab.opssec.in/caller"})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range left.Items {
		if pod.DeletionTimestamp == nil {
			t.Errorf("the short-lived caller %s is left", pod.Name)
		}
	}
	return found.Claims
}
