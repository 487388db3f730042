package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/remotecommand"

	"ambientlab/internal/source"
)

// kubectlProgram is the kubectl of the Kubernetes that the lab runs.
func (b *bench) kubectlProgram() string {
	b.t.Helper()
	progress := func(program, message string) { b.t.Logf("%s: %s", program, message) }
	builder, err := source.New(source.Options{Progress: progress})
	if err != nil {
		b.t.Fatal(err)
	}
	path, err := builder.Binary(b.t.Context(), "kubectl")
	if err != nil {
		b.t.Fatal(err)
	}
	return path
}

// kubectl is that program with the lab's kubeconfig.
func (b *bench) kubectl() func(args ...string) *exec.Cmd {
	b.t.Helper()
	path := b.kubectlProgram()
	return func(args ...string) *exec.Cmd {
		command := exec.CommandContext(b.t.Context(), path,
			append([]string{"--context", b.plane().ContextName(), "--namespace", "default"}, args...)...)
		command.Env = append(os.Environ(), "KUBECONFIG="+b.Settings.Kubeconfig)
		return command
	}
}

// kubectlWorks uses appa's pod with kubectl: describe, exec with an exit code and with an input, logs -f, port-forward.
func (b *bench) kubectlWorks() {
	b.t.Helper()
	kubectl := b.kubectl()
	pods, err := b.kube().CoreV1().Pods("default").List(b.t.Context(), metav1.ListOptions{LabelSelector: "app=appa"})
	if err != nil {
		b.t.Fatal(err)
	}
	appa := pods.Items[0].Name

	out, err := kubectl("describe", "pod", appa).CombinedOutput()
	if err != nil {
		b.t.Errorf("kubectl describe: %v: %s", err, out)
	}
	says(b.t, "kubectl describe", oneSpace(string(out)), "Status: Running", "Ready: True", "Started container httpbin",
		"Started container fortio")

	fails := kubectl("exec", appa, "-c", "fortio", "--", "/usr/bin/fortio", "curl", "http://127.0.0.1:1/")
	out, err = fails.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		b.t.Errorf("kubectl exec of a program that ends with 1: %v: %s", err, out)
	}
	reads := kubectl("exec", "-i", appa, "-c", "fortio", "--", "/usr/bin/fortio", "curl", "-stdclient",
		"-payload-file", "/dev/stdin", "-content-type", "text/plain", "http://appb:8000/post")
	reads.Stdin = strings.NewReader("what kubectl was given")
	if out, err = reads.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("what kubectl was given")) {
		b.t.Errorf("kubectl exec -i: %v: %s", err, out)
	}
	b.followsLog(kubectl, appa)
	b.forwards(kubectl)
	b.execInTerminal(appa)
}

// followsLog wants kubectl logs -f to print what is logged after it was started.
func (b *bench) followsLog(kubectl func(...string) *exec.Cmd, appa string) {
	b.t.Helper()
	b.reads("kubectl logs -f", kubectl("logs", "-f", "--tail=1", appa, "-c", "httpbin"),
		regexp.MustCompile(`anything/followed`), func() {
			const url = "http://127.0.0.1:8080/anything/followed"
			if code, out := b.exec(appa, nil, "/usr/bin/fortio", "curl", url); code != 0 {
				b.t.Errorf("a request from the pod to itself ends with %d: %s", code, out)
			}
		})
}

// forwards wants an answer of appb through kubectl port-forward.
func (b *bench) forwards(kubectl func(...string) *exec.Cmd) {
	b.t.Helper()
	forward := kubectl("port-forward", "service/appb", ":8000")
	b.reads("kubectl port-forward", forward, regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+)`), nil,
		func(found []string) {
			response, err := http.Get("http://" + found[1] + "/status/418")
			if err != nil {
				b.t.Errorf("kubectl port-forward: %v", err)
				return
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusTeapot {
				b.t.Errorf("kubectl port-forward: %s", response.Status)
			}
		})
}

// reads starts a command that does not end by itself, calls act, reads lines until one matches, calls what is to be
// done then, and ends the command.
func (b *bench) reads(what string, command *exec.Cmd, want *regexp.Regexp, act func(), then ...func([]string)) {
	b.t.Helper()
	out, err := command.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		b.t.Fatal(err)
	}
	stop := time.AfterFunc(2*time.Minute, func() { _ = command.Process.Kill() })
	defer stop.Stop()
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
	if act != nil {
		act()
	}
	var read strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		read.WriteString(lines.Text() + "\n")
		if found := want.FindStringSubmatch(lines.Text()); found != nil {
			for _, f := range then {
				f(found)
			}
			return
		}
	}
	b.t.Errorf("%s does not print %s: %s", what, want, read.String())
}

// execInTerminal runs a command with a terminal, as kubectl exec -it does: the terminal ends lines with CR LF and gives
// back what is typed.
func (b *bench) execInTerminal(pod string) {
	b.t.Helper()
	executor := b.executor(pod, &corev1.PodExecOptions{
		Container: "fortio", Command: []string{"/usr/bin/fortio", "version"}, Stdin: true, Stdout: true, TTY: true,
	})
	printed := &buffer{}
	typed, typing := io.Pipe()
	defer func() { _ = typing.Close() }()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{
		Stdin: typed, Stdout: printed, Tty: true,
	})
	if err != nil || !strings.Contains(printed.String(), "\r\n") {
		b.t.Errorf("exec with a terminal: %v, %q", err, printed.String())
	}
}
