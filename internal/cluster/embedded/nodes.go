package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/atomicfile"
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

// makeNodes creates the Node objects that are not there; kwok makes them Ready.
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
				Name:        n.Name,
				Annotations: map[string]string{"kwok.x-k8s.io/node": "fake"},
				Labels: map[string]string{
					corev1.LabelHostname: n.Name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64", "type": "kwok",
				},
			},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: n.InternalIP}, {Type: corev1.NodeHostName, Address: n.Name},
			}},
		}
		if n.Role == "control-plane" {
			object.Labels["node-role.kubernetes.io/control-plane"] = ""
			if s.Workers > 0 {
				object.Spec.Taints = []corev1.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}}
			}
		}
		if _, err := kube.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating node %s: %w", n.Name, err)
		}
	}
	return e.whileAllRun(ctx, func(ctx context.Context) error { return cluster.WaitNodes(ctx, config, len(e.nodes(s))) })
}

// aliveInterval is how often a wait looks whether those it waits for still live.
const aliveInterval = 500 * time.Millisecond

// whileAllRun ends a wait when a component dies: kwok, which makes nodes ready, and the scheduler have nothing that
// could be asked whether they work, so their end is all that can be seen of a failure.
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

// writeStages gives kwok the stages of its own module: nodes and pods that become ready at once.
func (e *Embedded) writeStages(ctx context.Context, programs Programs) error {
	dir, err := programs.ModuleDir(ctx, "kwok", "sigs.k8s.io/kwok")
	if err != nil {
		return err
	}
	var parts []string
	for _, folder := range []string{"node/fast", "node/heartbeat-with-lease", "pod/fast"} {
		files, err := filepath.Glob(filepath.Join(dir, "kustomize", "stage", folder, "*.yaml"))
		if err != nil {
			return fmt.Errorf("looking for kwok's stages: %w", err)
		}
		files = slices.DeleteFunc(files, func(path string) bool { return filepath.Base(path) == "kustomization.yaml" })
		if len(files) == 0 {
			return fmt.Errorf("kwok's module has no stages in %s", folder)
		}
		for _, path := range files {
			content, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("reading kwok's stages: %w", err)
			}
			parts = append(parts, string(content))
		}
	}
	parts = append(parts, readyAgain)
	return atomicfile.Write(filepath.Join(e.dir, "kwok.yaml"), []byte(strings.Join(parts, "\n---\n")), 0o600)
}

// readyAgain does what a kubelet does when its node is back: while the API server was away longer than a node's lease
// lasts, the controller manager has taken the nodes' pods for unready, and kwok's own stages make a pod ready only once.
const readyAgain = `apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata:
  name: pod-ready-again
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: '.metadata.deletionTimestamp', operator: DoesNotExist}
    - {key: '.status.phase', operator: In, values: [Running]}
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: In, values: ["False"]}
  next:
    statusTemplate: |
      conditions:
      - type: Ready
        status: "True"
        lastTransitionTime: {{ Now | Quote }}
`
