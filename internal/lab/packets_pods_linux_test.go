package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
)

// podsAnswer uses the pods as kubectl does: logs -f, and exec with an exit code and with an input. sm:verify covers
// port-forward. The pod runner's own port answers the API server alone.
func (b *bench) podsAnswer() {
	b.t.Helper()
	pods, err := b.kube().CoreV1().Pods("default").List(b.t.Context(), metav1.ListOptions{LabelSelector: "app=appa"})
	if err != nil {
		b.t.Fatal(err)
	}
	appa := pods.Items[0].Name

	code, out := b.exec(appa, nil, "/usr/bin/fortio", "curl", "http://127.0.0.1:1/")
	if code == 0 {
		b.t.Errorf("a command that fails ends with %d: %s", code, out)
	}
	// go-httpbin takes a body of up to 1 MiB. Fortio's -stream is no choice here: it speaks HTTP/2, which go-httpbin
	// does not.
	body := bytes.Repeat([]byte("0123456789abcdef"), 60<<10)
	code, out = b.exec(appa, body, "/usr/bin/fortio", "curl", "-stdclient", "-payload-file", "/dev/stdin",
		"-maxpayloadsizekb", "2048", "-content-type", "text/plain", "http://appb:8000/post")
	if got := strings.Count(out, "0123456789abcdef"); code != 0 || got != 60<<10 {
		b.t.Errorf("a command with %d bytes of input ends with %d, and %d of %d parts come back: %.2000s",
			len(body), code, got, 60<<10, out)
	}
	// A program that ends before it has read its input.
	if code, out = b.exec(appa, body, "/usr/bin/fortio", "version"); code != 0 {
		b.t.Errorf("a command that does not read its input ends with %d: %.2000s", code, out)
	}

	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	log, err := b.kube().CoreV1().Pods("default").GetLogs(appa, &corev1.PodLogOptions{
		Container: "httpbin", Follow: true, Timestamps: true,
	}).Stream(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	const seenURL = "http://127.0.0.1:8080/anything/seen-in-the-log"
	if code, out := b.exec(appa, nil, "/usr/bin/fortio", "curl", seenURL); code != 0 {
		b.t.Errorf("a request from the pod to itself ends with %d: %s", code, out)
	}
	seen := false
	for lines := bufio.NewScanner(log); !seen && lines.Scan(); {
		seen = strings.Contains(lines.Text(), "seen-in-the-log")
	}
	if !seen {
		b.t.Error("the log does not show the request while it is followed")
	}
	b.onlyTheAPIServer()
}

// onlyTheAPIServer asks the pod runner for a log without a certificate, and with the user's, which the same authority
// has signed.
func (b *bench) onlyTheAPIServer() {
	b.t.Helper()
	nodes, err := b.kube().CoreV1().Nodes().List(b.t.Context(), metav1.ListOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	address := fmt.Sprintf("https://127.0.0.1:%d/healthz", nodes.Items[0].Status.DaemonEndpoints.KubeletEndpoint.Port)
	config := b.connect().Config()
	user, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		b.t.Fatal(err)
	}
	for who, certificates := range map[string][]tls.Certificate{"without a certificate": nil, "the user": {user}} {
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, Certificates: certificates},
			DisableKeepAlives: true,
		}
		response, err := (&http.Client{Transport: transport}).Get(address)
		if err != nil {
			if certificates != nil || !strings.Contains(err.Error(), "certificate required") {
				b.t.Errorf("%s: %v", who, err)
			}
			continue
		}
		_ = response.Body.Close()
		if certificates == nil || response.StatusCode != http.StatusForbidden {
			b.t.Errorf("%s: %s", who, response.Status)
		}
	}
}

// exec runs a command in container fortio of a pod, and gives its exit code and what it printed.
func (b *bench) exec(pod string, input []byte, command ...string) (code int, out string) {
	b.t.Helper()
	executor := b.executor(pod, &corev1.PodExecOptions{
		Container: "fortio", Command: command, Stdin: input != nil, Stdout: true, Stderr: true,
	})
	printed := &buffer{}
	var in io.Reader
	if input != nil {
		in = bytes.NewReader(input)
	}
	err := executor.StreamWithContext(b.t.Context(),
		remotecommand.StreamOptions{Stdin: in, Stdout: printed, Stderr: printed})
	var exit utilexec.CodeExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatalf("%q in pod %s: %v", command, pod, err)
	}
	return exit.Code, printed.String()
}

// executor runs the command of options in a pod.
func (b *bench) executor(pod string, options *corev1.PodExecOptions) remotecommand.Executor {
	b.t.Helper()
	url := b.kube().CoreV1().RESTClient().Post().Namespace("default").Resource("pods").Name(pod).SubResource("exec").
		VersionedParams(options, scheme.ParameterCodec).URL()
	executor, err := remotecommand.NewWebSocketExecutor(b.connect().Config(), http.MethodGet, url.String())
	if err != nil {
		b.t.Fatal(err)
	}
	return executor
}
