package traffic

import (
	"context"
	"io"
	"time"
)

// Cluster is what the callers and observers need of Kubernetes.
type Cluster interface {
	// Pods lists the pods of a namespace that match a label selector and are not being deleted.
	Pods(ctx context.Context, namespace, selector string) ([]Pod, error)
	// Exec runs a command in a container. It returns the command's exit status; the error is ErrStatusLost where that
	// did not arrive.
	Exec(ctx context.Context, namespace, pod, container string, command []string, stdout, stderr io.Writer) (int, error)
	// Attach writes what a container prints on its standard output from now on, until it ends or ctx does. Where that
	// is not possible, it returns an error at once.
	Attach(ctx context.Context, namespace, pod, container string, stdout io.Writer) error
	// PodPort forwards a local port to a pod's.
	PodPort(ctx context.Context, namespace, pod string, port int) (address string, stop func(), err error)
	// Logs follows a container's log from a moment on, until the reader is closed or ctx ends.
	Logs(ctx context.Context, namespace, pod, container string, since time.Time) (io.ReadCloser, error)
	// StartPod creates the pod, its service account included, and returns when it is ready.
	StartPod(ctx context.Context, spec PodSpec) (Pod, error)
	// RemovePod deletes what StartPod created and does not wait for its end. What is gone already is no error.
	RemovePod(ctx context.Context, namespace, name string) error
}

// PodSpec is a short-lived caller: one fortio container that waits for exec.
type PodSpec struct {
	Namespace, Name string
	// ServiceAccount is created when missing, bearing the pod's name as its owner label.
	ServiceAccount string
	Image          string
	Labels         map[string]string
}

// Container is the fortio container's name, in appa's pod and in the short-lived ones.
const Container = "fortio"

// IdleArgs are the arguments with which fortio waits for exec in the pod of httpbin, whose port 8080 it must not take.
var idleArgs = []string{
	"server", "-http-port", "8078", "-grpc-port", "disabled", "-redirect-port", "disabled",
	"-tcp-port", "disabled", "-udp-port", "disabled",
}
