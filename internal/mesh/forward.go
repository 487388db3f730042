package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"ambientlab/internal/problem"
)

// Forwarder reaches pods through the API server, from wherever the lab runs.
type Forwarder struct {
	config *rest.Config
	kube   kubernetes.Interface
}

// NewForwarder makes a Forwarder for a cluster.
func NewForwarder(config *rest.Config) (*Forwarder, error) {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a Kubernetes client: %w", err)
	}
	return &Forwarder{config: config, kube: kube}, nil
}

// Forward is a local port that leads into a pod, until it is stopped.
type Forward struct {
	listener net.Listener
	dial     func(context.Context) (net.Conn, error)
	cancel   context.CancelCauseFunc
	ctx      context.Context
	release  func()
	running  sync.WaitGroup

	mu  sync.Mutex
	err error
}

// Addr is the local address, such as 127.0.0.1:38417.
func (f *Forward) Addr() string { return f.listener.Addr().String() }

// Err is why the latest connection could not be made, or nil.
func (f *Forward) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Stop closes the local port and every connection through it, and returns when all are gone. It may be called more than
// once.
func (f *Forward) Stop() {
	f.cancel(net.ErrClosed)
	_ = f.listener.Close()
	f.running.Wait()
	f.release()
}

// PodPort forwards a free local port on 127.0.0.1 to a pod's port. It returns when the API server has agreed to the
// connection; stop ends it, as the end of ctx does. When the pod restarts, connections break and later ones are opened
// again; when it is deleted they are closed at once.
func (f *Forwarder) PodPort(
	ctx context.Context, namespace, pod string, port int,
) (addr string, stop func(), err error) {
	tunnel := f.Tunnel(namespace, pod, port)
	if _, _, err := tunnel.connection(ctx); err != nil {
		return "", nil, tunnel.problem(err)
	}
	forward, err := listen(ctx, "127.0.0.1:0", tunnel.DialContext, func() { _ = tunnel.Close() })
	if err != nil {
		_ = tunnel.Close()
		return "", nil, err
	}
	return forward.Addr(), forward.Stop, nil
}

// Service forwards a local address, such as 127.0.0.1:3000 or 127.0.0.1:0 for any port, to a port of a Service: to one
// of its ready pods, and to another when that one is gone.
func (f *Forwarder) Service(ctx context.Context, namespace, name string, port int, local string) (*Forward, error) {
	s := &servicePods{forwarder: f, namespace: namespace, name: name, port: port}
	if _, err := s.current(ctx, nil); err != nil {
		return nil, err
	}
	return listen(ctx, local, s.dial, s.close)
}

func listen(
	ctx context.Context, local string, dial func(context.Context) (net.Conn, error), release func(),
) (*Forward, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", local)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, problem.New(problem.PortInUse, err, "%s is taken by another program", local)
	}
	if err != nil {
		return nil, fmt.Errorf("opening local port %s: %w", local, err)
	}
	f := &Forward{listener: listener, dial: dial, release: release}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	f.running.Go(f.accept)
	f.running.Go(func() {
		<-f.ctx.Done()
		_ = listener.Close()
	})
	return f, nil
}

func (f *Forward) accept() {
	for {
		local, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.running.Go(func() { f.serve(local) })
	}
}

// serve copies one connection in both directions until either side has ended it.
func (f *Forward) serve(local net.Conn) {
	defer func() { _ = local.Close() }()
	remote, err := f.dial(f.ctx)
	f.note(err)
	if err != nil {
		return
	}
	defer func() { _ = remote.Close() }()
	broken := context.AfterFunc(f.ctx, func() {
		_ = local.Close()
		_ = remote.Close()
	})
	defer broken()
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(remote, local)
		if half, ok := remote.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	})
	_, err = io.Copy(local, remote)
	f.note(err)
	// The pod has said all; the local side is told, which also ends the copy up.
	_ = local.Close()
	up.Wait()
}

// note keeps the latest connection's error; a stop is none.
func (f *Forward) note(err error) {
	if f.ctx.Err() != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// servicePods dials the pods of a Service, one at a time.
type servicePods struct {
	forwarder       *Forwarder
	namespace, name string
	port            int

	mu     sync.Mutex
	tunnel *Tunnel
}

func (s *servicePods) dial(ctx context.Context) (net.Conn, error) {
	tunnel, err := s.current(ctx, nil)
	if err != nil {
		return nil, err
	}
	conn, err := tunnel.DialContext(ctx)
	if err == nil || ctx.Err() != nil {
		return conn, err
	}
	// The pod may be gone: look for another, once.
	if tunnel, err = s.current(ctx, tunnel); err != nil {
		return nil, err
	}
	return tunnel.DialContext(ctx)
}

// current gives the tunnel in use, or a new one where it is the one that failed or where its pod is not ready any more:
// a tunnel to a pod that was replaced may still accept a connection, which then ends without an answer.
func (s *servicePods) current(ctx context.Context, failed *Tunnel) (*Tunnel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tunnel != nil && s.tunnel != failed && !s.forwarder.isGone(ctx, s.namespace, s.tunnel.pod) {
		return s.tunnel, nil
	}
	pod, port, err := s.forwarder.podOf(ctx, s.namespace, s.name, s.port)
	if err != nil {
		return nil, err
	}
	if s.tunnel != nil {
		_ = s.tunnel.Close()
	}
	s.tunnel = s.forwarder.Tunnel(s.namespace, pod, port)
	return s.tunnel, nil
}

// isGone tells whether a pod does not exist or is not ready. Where the API server does not answer, it is not known to
// be.
func (f *Forwarder) isGone(ctx context.Context, namespace, name string) bool {
	pod, err := f.kube.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return apierrors.IsNotFound(err)
	}
	return !ready(pod)
}

func (s *servicePods) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tunnel != nil {
		_ = s.tunnel.Close()
	}
}

// podOf finds a ready pod of a Service and the pod's port behind the Service's.
func (f *Forwarder) podOf(ctx context.Context, namespace, name string, port int) (pod string, target int, err error) {
	service, err := f.kube.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", 0, fmt.Errorf("reading Service %s/%s: %w", namespace, name, err)
	}
	var wanted *corev1.ServicePort
	for i := range service.Spec.Ports {
		if int(service.Spec.Ports[i].Port) == port {
			wanted = &service.Spec.Ports[i]
		}
	}
	if wanted == nil {
		return "", 0, problem.New(problem.ProxyUnreachable, nil, "Service %s/%s has no port %d", namespace, name, port)
	}
	pods, err := f.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: labels.SelectorFromSet(service.Spec.Selector).String(),
	})
	if err != nil {
		return "", 0, fmt.Errorf("listing the pods of Service %s/%s: %w", namespace, name, err)
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; ready(p) {
			if target := containerPort(p, wanted); target > 0 {
				return p.Name, target, nil
			}
		}
	}
	return "", 0, problem.New(problem.ProxyUnreachable, nil, "Service %s/%s has no ready pod (%d pods in all)",
		namespace, name, len(pods.Items))
}

func ready(pod *corev1.Pod) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// containerPort resolves a Service port's target in a pod; 0 where a name is not there.
func containerPort(pod *corev1.Pod, port *corev1.ServicePort) int {
	if port.TargetPort.Type == intstr.Int {
		if port.TargetPort.IntVal == 0 {
			return int(port.Port)
		}
		return int(port.TargetPort.IntVal)
	}
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == port.TargetPort.StrVal {
				return int(p.ContainerPort)
			}
		}
	}
	return 0
}
