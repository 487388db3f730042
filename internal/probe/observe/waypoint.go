package observe

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"ambientlab/internal/probe/traffic"
)

// Waypoint is the waypoint of a cluster, seen through its pods.
type Waypoint struct {
	Cluster   traffic.Cluster
	Namespace string
	// Selector finds the waypoint's pods.
	Selector string
	// OpenAdmin gives the admin interface of a pod's Envoy. It is kept for later reads, until Close.
	OpenAdmin func(pod string) Admin

	mutex  sync.Mutex
	admins map[string]Admin // by incarnation
}

// Admin is the admin interface of an Envoy.
type Admin interface {
	// Get reads a path, such as /stats.
	Get(ctx context.Context, path string) ([]byte, error)
	Close() error
}

const proxyContainer = "istio-proxy"

// Counters reads the counters of all pods of the waypoint. Without pods there are none, which is no error.
func (w *Waypoint) Counters(ctx context.Context) (Counters, error) {
	pods, err := w.Cluster.Pods(ctx, w.Namespace, w.Selector)
	if err != nil {
		return Counters{}, fmt.Errorf("listing the waypoint's pods: %w", err)
	}
	var sum Counters
	for _, pod := range pods {
		if !pod.Ready {
			continue
		}
		sum.Pods = append(sum.Pods, pod.Incarnation())
		answer, err := w.admin(pod).Get(ctx, "/stats?format=json&filter="+url.QueryEscape(StatsFilter))
		if err == nil {
			err = sum.AddStats(answer)
		}
		if err != nil {
			return Counters{}, fmt.Errorf("reading the counters of waypoint %s: %w", pod.Name, err)
		}
	}
	return sum, nil
}

func (w *Waypoint) admin(pod traffic.Pod) Admin {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	key := pod.Incarnation()
	if w.admins[key] == nil {
		if w.admins == nil {
			w.admins = map[string]Admin{}
		}
		w.admins[key] = w.OpenAdmin(pod.Name)
	}
	return w.admins[key]
}

// Close closes the admin interfaces.
func (w *Waypoint) Close() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	var errs []error
	for _, admin := range w.admins {
		errs = append(errs, admin.Close())
	}
	w.admins = nil
	return errors.Join(errs...)
}

// Crossings follows the access log of all pods of the waypoint from a moment on and passes each request to enough until
// that returns true or ctx ends, which is no error: what was not logged by then did not go through.
func (w *Waypoint) Crossings(ctx context.Context, since time.Time, enough func(Crossing) bool) error {
	pods, err := w.Cluster.Pods(ctx, w.Namespace, w.Selector)
	if err != nil {
		return fmt.Errorf("listing the waypoint's pods: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan Crossing)
	ended := make(chan error, len(pods))
	following := 0
	for _, pod := range pods {
		if !pod.Ready {
			continue
		}
		following++
		go func() { ended <- w.follow(ctx, pod.Name, since, found) }()
	}
	done := false
	for following > 0 {
		select {
		case crossing := <-found:
			if !done && enough(crossing) {
				done = true
				cancel()
			}
		case end := <-ended:
			following--
			if end != nil && ctx.Err() == nil {
				err = errors.Join(err, end)
			}
		}
	}
	return err
}

func (w *Waypoint) follow(ctx context.Context, pod string, since time.Time, found chan<- Crossing) error {
	err := output(ctx, w.Cluster, w.Namespace, pod, proxyContainer, since, Parse,
		func(c Crossing) bool { return passes(ctx, found, c) })
	if err != nil {
		return fmt.Errorf("reading the log of waypoint %s: %w", pod, err)
	}
	return nil
}
