//go:build e2e && e2efull

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/ui"
)

// interruption is a signal at a moment of a target, told by what its progress says.
type interruption struct {
	signal syscall.Signal
	target string
	// moment is a step's ID, and says what that step must be saying, if anything.
	moment, says string
}

func (i interruption) String() string {
	return strings.Join(strings.Fields(i.signal.String()+" in "+i.target+" at "+i.moment+" "+i.says), "_")
}

// TestSignals interrupts a lab on its way up, in every phase and by every signal, and goes on from what is left each
// time.
func TestSignals(t *testing.T) {
	l := newLab(t, "lab-signals")
	before := l.leaks(t)
	t.Cleanup(func() {
		if t.Failed() {
			l.dump(t)
		}
		l.try(t, "sm:delete")
	})
	for _, i := range []interruption{
		{syscall.SIGINT, "sm:install", "cluster", "Preparing nodes"},
		{syscall.SIGTERM, "sm:install", "cluster", "Starting control-plane"},
		{syscall.SIGKILL, "sm:install", "cluster", "Preparing nodes"},
		{syscall.SIGKILL, "sm:install", "cluster", "Joining worker nodes"},
	} {
		t.Run(i.String(), func(t *testing.T) {
			whole := l.interrupt(t, i)
			if left := l.leaks(t); whole && i.signal != syscall.SIGKILL && left != before {
				t.Errorf("before the run there was %s, after it there is %s", before, left)
			}
			if state := l.state(t); state != cluster.Absent && state != cluster.Partial {
				t.Errorf("the cluster is %s; want one that the next run makes", state)
			}
		})
	}
	t.Run("deleting what a killed create left", func(t *testing.T) {
		l.mage(t, "sm:delete")
		if left := l.leaks(t); left != before {
			t.Errorf("before the lab there was %s, after it there is %s", before, left)
		}
	})
	for _, i := range []interruption{
		{syscall.SIGKILL, "sm:install", "images", ""},
		{syscall.SIGINT, "sm:install", "istiod", "create Deployment"},
		{syscall.SIGTERM, "sm:install", "istio-cni", ""},
		{syscall.SIGKILL, "sm:install", "ztunnel", "create DaemonSet"},
	} {
		t.Run(i.String(), func(t *testing.T) { l.interrupt(t, i) })
	}
	l.mage(t, "sm:install")
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		i := interruption{signal, "sm:apps", "appb", "create Deployment"}
		t.Run(i.String(), func(t *testing.T) {
			l.interrupt(t, i)
			l.mage(t, "sm:apps", "-off")
		})
	}
	i := interruption{syscall.SIGKILL, "sm:apps", "appb", "create Deployment"}
	t.Run(i.String()+", and on from there", func(t *testing.T) { l.interrupt(t, i) })
	l.mage(t, "sm:apps")
	if status, _, _ := get(t, http.MethodGet, l.gatewayAddress(t), "/headers"); status != http.StatusOK {
		t.Errorf("GET through the gateway: %d, want 200", status)
	}
	again := l.mage(t, "sm:install")
	if !strings.Contains(again.stderr, "no changes") {
		t.Error("after all that, another install does not say `no changes`")
	}
	l.mage(t, "sm:delete")
	if after := l.leaks(t); after != before {
		t.Errorf("before the lab there was %s, after it there is %s", before, after)
	}
	if _, err := os.Stat(l.kubeconfig + ".lock"); !os.IsNotExist(err) {
		t.Errorf("the kubeconfig's lock is left: %v", err)
	}
	if cache, err := os.UserCacheDir(); err == nil {
		left, err := filepath.Glob(filepath.Join(cache, "ambientlab", "locks", "kind-"+l.name+".*"))
		if err != nil || len(left) != 0 {
			t.Errorf("left next to the lock: %v, %v", left, err)
		}
	}
}

// interrupt runs a target and signals it at the moment. The signal goes to the process group, as a terminal's Ctrl-C
// does, so the docker commands that kind runs get it too. A run that ends by itself before the moment is a failure of
// the test. whole tells whether the run could clean up: after a SIGINT, Mage ends it after five seconds, which are too
// short on a slow machine.
func (l *lab) interrupt(t *testing.T, i interruption) (whole bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	run := l.command(ctx, i.target)
	run.Env = append(run.Env, "SM_OUTPUT=json") // a line for each change
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	var sent time.Time
	whole = true
	lines := bufio.NewScanner(said)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		t.Log(lines.Text())
		var line ui.Line
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			whole = whole && !strings.Contains(lines.Text(), "cleanup timeout exceeded")
			continue // what a program that the lab runs writes itself
		}
		text := line.Message
		if line.Change != nil {
			text = line.Change.Action + " " + line.Change.Object
		}
		if sent.IsZero() && line.Step == i.moment && strings.Contains(text, i.says) {
			sent = time.Now()
			if err := syscall.Kill(-run.Process.Pid, i.signal); err != nil {
				t.Error(err)
			}
		}
	}
	err = run.Wait()
	if sent.IsZero() || err == nil {
		t.Fatalf("%s: the run was not interrupted (it ended with %v)", i, err)
	}
	t.Logf("%s: ended %s after the signal with %v", i, time.Since(sent).Round(100*time.Millisecond), err)
	return whole
}

// state asks what a next run would find.
func (l *lab) state(t *testing.T) cluster.State {
	t.Helper()
	api, endpoint, err := docker.New(docker.SystemEnv())
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	info, err := cluster.NewKind(
		cluster.KindOptions{Name: l.name, Kubeconfig: l.kubeconfig, Docker: api, Endpoint: endpoint}).
		Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.State
}
