package embedded

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/cluster"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// nodes are named as kind names those of a cluster with one control plane.
func (e *Embedded) nodes(s *state) []cluster.Node {
	address := func(i int) string { return fmt.Sprintf("198.51.100.%d", i+1) } // RFC 5737: no machine has it
	nodes := []cluster.Node{{Name: s.Name + "-control-plane", Role: "control-plane", InternalIP: address(0)}}
	for i := range s.Workers {
		name := s.Name + "-worker"
		if i > 0 {
			name += fmt.Sprint(i + 1)
		}
		nodes = append(nodes, node.Node{Name: name, Role: "worker", InternalIP: address(i + 1)})
	}
	return nodes
}

// makeNodes creates the Node objects that are not there; the pod runner makes them Ready.
func (e *Embedded) makeNodes(ctx context.Context, s *state) error {
	config, err := e.RESTConfig(ctx)
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	for _, n := range e.nodes(s) {
		object := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{
				Name: n.Name,
				Labels: map[string]string{
					corev1.LabelHostname: n.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: runtime.GOARCH,
				},
			},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: n.InternalIP}, {Type: corev1.NodeHostName, Address: n.Name},
			}},
		}
		if n.Role == "control-plane" {
			object.Labels["node-role.kubernetes.io/control-plane"] = ""
			if s.Workers > 0 {
				object.Spec.Taints = []corev1.Taint{
					{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule},
				}
			}
		}
		if _, err := kube.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{}); err != nil &&
			!apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating node %s: %w", n.Name, err)
		}
	}
	return e.whileAllRun(ctx,
		func(ctx context.Context) error { return cluster.WaitNodes(ctx, config, len(e.nodes(s))) })
}

// aliveInterval is how often a wait looks whether those it waits for still live.
const aliveInterval = 500 * time.Millisecond

// whileAllRun ends a wait when a component dies: the pod runner, which makes nodes ready, and the scheduler have
// nothing that could be asked whether they work, so their end is all that can be seen of a failure.
func (e *Embedded) whileAllRun(ctx context.Context, wait func(context.Context) error) error {
	waiting, cancel := context.WithCancelCause(ctx)
	group := errgroup.Group{}
	group.Go(func() error {
		defer cancel(nil)
		return wait(waiting)
	})
	group.Go(func() error {
		for {
			if stopped := e.stopped(baseComponents()); len(stopped) > 0 {
				cancel(problem.New(problem.ClusterStopped, nil, "%s", strings.Join(stopped, "; ")))
				return nil
			}
			select {
			case <-e.after(aliveInterval):
			case <-waiting.Done():
				return nil
			}
		}
	})
	err := group.Wait()
	var died *problem.Problem
	if err != nil && errors.As(context.Cause(waiting), &died) && ctx.Err() == nil {
		return died
	}
	return err
}
