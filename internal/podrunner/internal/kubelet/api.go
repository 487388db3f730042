package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/logs"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"ambientlab/podrunner/internal/sandbox"
)

// ServeAPI serves exec, logs and port-forward until ctx ends, to the API server alone: loopback is open to every user
// of the machine.
func (k *Kubelet) ServeAPI(ctx context.Context) error {
	c := k.Config.Kubelet
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return fmt.Errorf("reading the certificate of the kubelet API: %w", err)
	}
	root, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return fmt.Errorf("reading the authority of the kubelet API's client: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(root) {
		return fmt.Errorf("%s holds no certificate", c.ClientCA)
	}
	listener, err := net.Listen("tcp4", net.JoinHostPort(kubeletHost, strconv.Itoa(c.Port)))
	if err != nil {
		return fmt.Errorf("listening for the kubelet API: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	for _, path := range []string{"/exec/{namespace}/{pod}/{container}", "/exec/{namespace}/{pod}/{uid}/{container}"} {
		mux.HandleFunc(path, k.serveExec)
	}
	for _, path := range []string{"/portForward/{namespace}/{pod}", "/portForward/{namespace}/{pod}/{uid}"} {
		mux.HandleFunc(path, k.servePortForward)
	}
	mux.HandleFunc("/attach/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the pod runner does not attach to containers: use kubectl logs -f, or kubectl exec",
			http.StatusNotImplemented)
	})
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.serveLogs)
	server := &http.Server{
		Handler: onlyFor(c.Client, mux), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{pair},
			ClientCAs:    pool,
			ClientAuth:   tls.RequireAndVerifyClientCert,
			MinVersion:   tls.VersionTLS12,
		},
		ErrorLog: slog.NewLogLogger(k.Log.Handler(), slog.LevelWarn),
		// An upgraded connection is not HTTP/2's.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// onlyFor refuses every client but the one of the given name: the same authority has signed certificates for others.
func onlyFor(client string, handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || r.TLS.VerifiedChains[0][0].Subject.CommonName != client {
			http.Error(w, "only the API server is served", http.StatusForbidden)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

func (k *Kubelet) workerOf(w http.ResponseWriter, r *http.Request) *worker {
	namespace, name := r.PathValue("namespace"), r.PathValue("pod")
	found := k.worker(namespace, name)
	if found == nil {
		http.Error(w, fmt.Sprintf("no pod %s/%s on this node", namespace, name), http.StatusNotFound)
	}
	return found
}

func (k *Kubelet) serveExec(w http.ResponseWriter, r *http.Request) {
	on := k.workerOf(w, r)
	if on == nil {
		return
	}
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if _, _, err := on.find(r.PathValue("container")); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	remotecommand.ServeExec(
		w,
		r,
		executor{on},
		r.PathValue("pod"),
		"",
		r.PathValue("container"),
		r.Form["command"],
		options,
		streaming.DefaultConfig.StreamIdleTimeout,
		streaming.DefaultConfig.StreamCreationTimeout,
		streaming.DefaultConfig.SupportedRemoteCommandProtocols,
	)
}

// executor runs commands in the containers of a pod.
type executor struct{ w *worker }

// ExecInContainer implements remotecommand.Executor.
func (e executor) ExecInContainer(
	ctx context.Context,
	_, _, container string,
	command []string,
	in io.Reader,
	out, err io.WriteCloser,
	terminal bool,
	resize <-chan remotecommand.TerminalSize,
	_ time.Duration,
) error {
	r, name, failed := e.w.find(container)
	if failed != nil {
		return failed
	}
	if len(command) == 0 {
		return errors.New("no command")
	}
	if terminal {
		return exit(e.inTerminal(ctx, name, r, command, in, out, resize))
	}
	stdout, stderr := io.Writer(io.Discard), io.Writer(io.Discard)
	if out != nil {
		stdout = out
	}
	if err != nil {
		stderr = err
	}
	stdin, closeStdin, failed := pipeOf(in)
	if failed != nil {
		return failed
	}
	defer closeStdin()
	return exit(e.w.attach(ctx, r,
		sandbox.Command{Container: name, Args: command, Stdin: stdin, Stdout: stdout, Stderr: stderr}))
}

// exit turns the exit code of a command into the error that tells it to the client.
func exit(code int, err error) error {
	if err == nil && code != 0 {
		err = utilexec.CodeExitError{Code: code, Err: fmt.Errorf("command terminated with exit code %d", code)}
	}
	return err
}

// inTerminal runs a command with a terminal of its own.
func (e executor) inTerminal(
	ctx context.Context, container string, r *run, command []string, in io.Reader, out io.Writer,
	resize <-chan remotecommand.TerminalSize,
) (code int, err error) {
	ours, theirs, err := pty.Open()
	if err != nil {
		return 0, fmt.Errorf("making a terminal: %w", err)
	}
	defer func() { _ = ours.Close() }()
	go func() {
		for size := range resize {
			_ = pty.Setsize(ours, &pty.Winsize{Rows: size.Height, Cols: size.Width})
		}
	}()
	if in != nil {
		go func() { _, _ = io.Copy(ours, in) }()
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		if out == nil {
			out = io.Discard
		}
		_, _ = io.Copy(out, ours) // ends when no program has the terminal open
	}()
	// A container runtime sets the same type of terminal.
	code, err = e.w.attach(ctx, r, sandbox.Command{
		Container: container, Args: command, Env: []string{"TERM=xterm"}, Stdin: theirs, Stdout: theirs, Stderr: theirs,
		Terminal: true,
	})
	_ = theirs.Close()
	<-copied
	return code, err
}

// pipeOf gives an input that ends the copying to a program when the program ends: the copying from a network stream
// would otherwise go on until the client closes it, and the program's end is only reported after that.
// What the program has not read is dropped when closeRead is called.
func pipeOf(in io.Reader) (input io.Reader, closeRead func(), err error) {
	if in == nil {
		return nil, func() {}, nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("making a pipe for the input: %w", err)
	}
	go func() {
		_, _ = io.Copy(write, in)
		_ = write.Close()
	}()
	return read, func() { _ = read.Close() }, nil
}

func (k *Kubelet) servePortForward(w http.ResponseWriter, r *http.Request) {
	on := k.workerOf(w, r)
	if on == nil {
		return
	}
	if _, _, err := on.find(""); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(
		w,
		r,
		forwarder{on},
		r.PathValue("pod"),
		"",
		options,
		streaming.DefaultConfig.StreamIdleTimeout,
		streaming.DefaultConfig.StreamCreationTimeout,
		streaming.DefaultConfig.SupportedPortForwardProtocols,
	)
}

// forwarder connects streams to ports of a pod.
type forwarder struct{ w *worker }

// PortForward implements portforward.PortForwarder.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	f.w.mu.Lock()
	made := f.w.sandbox
	f.w.mu.Unlock()
	if made == nil {
		return errNoContainer
	}
	conn, err := made.Dial(ctx, int(port))
	if err != nil {
		return fmt.Errorf("connecting to port %d of the pod: %w", port, err)
	}
	Join(ctx, conn, stream)
	return nil
}

// Join copies between a connection and a stream until both directions have ended, or ctx has. The end of one direction
// is passed on where the other side can take it.
func Join(ctx context.Context, a, b io.ReadWriteCloser) {
	stop := context.AfterFunc(ctx, func() {
		_ = a.Close()
		_ = b.Close()
	})
	defer stop()
	var directions [2]chan struct{}
	pass := func(i int, to, from io.ReadWriteCloser) {
		directions[i] = make(chan struct{})
		done := directions[i]
		go func() {
			defer close(done)
			_, err := io.Copy(to, from)
			half, can := to.(interface{ CloseWrite() error })
			if !can || err != nil {
				_ = to.Close()
				return
			}
			_ = half.CloseWrite()
		}()
	}
	pass(0, a, b)
	pass(1, b, a)
	<-directions[0]
	<-directions[1]
	_ = a.Close()
	_ = b.Close()
}

func (k *Kubelet) serveLogs(w http.ResponseWriter, r *http.Request) {
	on := k.workerOf(w, r)
	if on == nil {
		return
	}
	options, previous, err := logOptions(r, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name := r.PathValue("container")
	on.mu.Lock()
	c, reason := on.container(name), on.annotations[Simulated]
	restarts, waits, backsOff := int32(0), false, false
	if c != nil {
		restarts = c.restarts
		waits = c.state.Waiting != nil // the next run has no log yet
		backsOff = waits && c.state.Waiting.Reason == crashLoop
	}
	pod := on.pod
	on.mu.Unlock()
	switch {
	case c == nil:
		http.Error(w, fmt.Sprintf("pod %s has no container %s", pod.Name, name), http.StatusNotFound)
		return
	case reason != "": // kubectl does not print the text of a 404
		http.Error(w, fmt.Sprintf("pod %s is simulated and has no logs: %s", pod.Name, reason), http.StatusBadRequest)
		return
	case previous && !backsOff: // in the pause before the next run, the last one is the previous one too
		restarts--
	}
	path := k.logFile(pod, name, restarts)
	if _, err := os.Stat(path); err != nil {
		state := "has no log yet"
		if previous {
			state = "has no log of an earlier run"
		} else if waits {
			state = "is waiting to start"
		}
		http.Error(w, fmt.Sprintf("container %q in pod %q %s", name, pod.Name, state), http.StatusBadRequest)
		return
	}
	out := flushed(w)
	w.WriteHeader(http.StatusOK)
	if err := logs.ReadLogs(r.Context(), path, containerRun(name, restarts), options,
		running{RuntimeService: nil, w: on}, out, out); err != nil &&
		r.Context().Err() == nil {
		k.Log.Warn("reading a log failed", "pod", pod.Name, "container", name, "error", err)
	}
}

func containerRun(name string, restarts int32) string { return fmt.Sprintf("%s/%d", name, restarts) }

// logOptions reads the options of a request for a log, as the API server passes them on (k8s.io/api, PodLogOptions).
func logOptions(r *http.Request, now time.Time) (options *logs.LogOptions, previous bool, err error) {
	query := r.URL.Query()
	asked := &corev1.PodLogOptions{}
	number := func(name string) *int64 {
		value := query.Get(name)
		if value == "" || err != nil {
			return nil
		}
		n, parse := strconv.ParseInt(value, 10, 64)
		if parse != nil || n < 0 {
			err = fmt.Errorf("%s=%q is no number", name, value)
			return nil
		}
		return &n
	}
	flag := func(name string) bool { return query.Get(name) == "true" || query.Get(name) == "1" }
	asked.TailLines, asked.LimitBytes, asked.SinceSeconds = number(
		"tailLines",
	), number(
		"limitBytes",
	), number(
		"sinceSeconds",
	)
	asked.Follow, asked.Timestamps, previous = flag("follow"), flag("timestamps"), flag("previous")
	options = &logs.LogOptions{
		TailLines:  asked.TailLines,
		LimitBytes: asked.LimitBytes,
		Follow:     asked.Follow,
		Timestamp:  asked.Timestamps,
	}
	if asked.SinceSeconds != nil {
		options.Since = now.Add(-time.Duration(*asked.SinceSeconds) * time.Second)
	}
	if since := query.Get("sinceTime"); since != "" {
		at, parse := time.Parse(time.RFC3339, since)
		if parse != nil {
			return nil, false, fmt.Errorf("sinceTime=%q: %w", since, parse)
		}
		options.Since = at
	}
	return options, previous, err
}

// running answers the one question that ReadLogs has while it follows a log: whether the container still runs.
type running struct {
	internalapi.RuntimeService
	w *worker
}

// ContainerStatus implements the part of RuntimeService that ReadLogs uses.
func (r running) ContainerStatus(_ context.Context, id string, _ bool) (*runtimeapi.ContainerStatusResponse, error) {
	state := runtimeapi.ContainerState_CONTAINER_EXITED
	r.w.mu.Lock()
	for _, c := range r.w.state.containers {
		if containerRun(c.spec.Name, c.restarts) == id && c.state.Running != nil {
			state = runtimeapi.ContainerState_CONTAINER_RUNNING
		}
	}
	r.w.mu.Unlock()
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: id, State: state}}, nil
}

// flushed sends each line of a log when it is written.
func flushed(w http.ResponseWriter) io.Writer { return &flusher{w, http.NewResponseController(w)} }

type flusher struct {
	w       io.Writer
	control *http.ResponseController
}

func (f *flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}
