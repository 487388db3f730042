package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	discovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

func workerNode(name, ip string, ready corev1.ConditionStatus) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: name},
				{Type: corev1.NodeInternalIP, Address: ip},
			},
			Conditions: []corev1.NodeCondition{
				{
					Type: corev1.NodeReady, Status: ready, Reason: "KubeletNotReady",
					Message: "cni plugin not initialized",
				},
			},
		},
	}
}

// existing is a cluster of one version, in which the verbs in denied may not be used.
func existing(t *testing.T, kubeconfig, gitVersion string, denied []string, objects ...runtime.Object) *Existing {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	if kubeconfig != "" {
		if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kube := fake.NewClientset(append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})...)
	kube.Discovery().(*discovery.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: gitVersion}
	kube.PrependReactor("create", "selfsubjectaccessreviews",
		func(a clienttesting.Action) (bool, runtime.Object, error) {
			review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
			review.Status.Allowed = !slices.Contains(denied, review.Spec.ResourceAttributes.Verb)
			return true, review, nil
		})
	e := NewExisting(ExistingOptions{Kubeconfig: path})
	e.kube = func(*rest.Config) (kubernetes.Interface, error) { return kube, nil }
	return e
}

func TestExistingCreateOnlyChecks(t *testing.T) {
	tests := []struct {
		name, kubeconfig, version string
		denied                    []string
		kind                      problem.Kind
		says                      string
	}{
		{name: "good", kubeconfig: minesOnly, version: "v1.36.3"},
		{name: "a vendor's version", kubeconfig: minesOnly, version: "v1.32.1-gke.1002000"},
		{name: "too old", kubeconfig: minesOnly, version: "v1.31.9", kind: problem.ClusterVersion, says: "v1.31.9"},
		{
			name: "too new", kubeconfig: minesOnly, version: "v1.37.0", kind: problem.ClusterVersion,
			says: "1.32 to 1.36",
		},
		{
			name:       "rights missing",
			kubeconfig: minesOnly,
			version:    "v1.36.3",
			denied:     []string{"escalate", "create"},
			kind:       problem.ApplyForbidden,
			says:       "create namespaces, escalate clusterroles rbac.authorization.k8s.io",
		},
		{name: "no kubeconfig", version: "v1.36.3", kind: problem.ClusterNone, says: "does not exist"},
		{
			name:       "no such context",
			kubeconfig: strings.Replace(minesOnly, `"current-context":"mine"`, `"current-context":"theirs"`, 1),
			version:    "v1.36.3",
			kind:       problem.KubeconfigInvalid,
			says:       `"theirs" does not exist`,
		},
		{
			name: "not a kubeconfig", kubeconfig: "{", version: "v1.36.3", kind: problem.KubeconfigInvalid,
			says: "reading",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := existing(t, tt.kubeconfig, tt.version, tt.denied).Create(t.Context())
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !problem.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %s saying %q", err, tt.kind.ID, tt.says)
			}
		})
	}
}

func TestExistingInspect(t *testing.T) {
	e := existing(
		t, minesOnly, "v1.36.3", nil, workerNode("n1", "172.18.0.2", corev1.ConditionTrue),
		workerNode("n2", "10.0.0.2", corev1.ConditionFalse),
	)
	engine := &dockertest.Engine{}
	for i, name := range []string{"n1", "n2"} {
		engine.Add(
			dockertest.Container{
				ID:      "id-" + name,
				Name:    name,
				Network: "kind",
				IP:      fmt.Sprintf("172.18.0.%d", i+2),
				Labels:  map[string]string{node.ClusterLabel: "theirs"},
			},
		)
	}
	e.opts.Docker = engine
	info, err := e.Inspect(t.Context())
	if err != nil || info.Context != "mine" || info.Server != "https://192.0.2.1" || info.Owned ||
		info.Version != "v1.36.3" {
		t.Errorf("%+v, %v", info, err)
	}
	if info.State != Ready || info.Message != "node n2: KubeletNotReady: cni plugin not initialized" ||
		info.Nodes[1].Running {
		t.Errorf("a node that is not ready is a message: state %q: %s", info.State, info.Message)
	}
	if info.Nodes[0].ContainerID != "id-n1" || info.Nodes[0].Network != "kind" || info.Nodes[1].ContainerID != "" {
		t.Errorf("only a node of the same name and address is the container: %+v", info.Nodes)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestExistingUnreachable(t *testing.T) {
	e := NewExisting(ExistingOptions{Kubeconfig: filepath.Join(t.TempDir(), "config")})
	refused := strings.Replace(minesOnly, "https://192.0.2.1", "https://127.0.0.1:1", 1)
	if err := os.WriteFile(e.opts.Kubeconfig, []byte(refused), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := e.Inspect(t.Context())
	if err != nil || info.State != Unreachable || !strings.Contains(info.Message, "refused") {
		t.Errorf("%+v, %v", info, err)
	}
	if err := e.Create(t.Context()); !problem.Is(err, problem.ClusterUnreachable) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Inspect(ctx); err == nil {
		t.Error("a cancelled look is an error, not a verdict")
	}
}

// TestExistingStepVets wants a healthy cluster looked at as closely as any: what needs the step touches nothing before.
func TestExistingStepVets(t *testing.T) {
	for _, tt := range []struct {
		name, version string
		denied        []string
		kind          problem.Kind
	}{
		{name: "a node not ready", version: "v1.36.3"},
		{name: "too old", version: "v1.31.9", kind: problem.ClusterVersion},
		{name: "rights missing", version: "v1.36.3", denied: []string{"escalate"}, kind: problem.ApplyForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := existing(t, minesOnly, tt.version, tt.denied, workerNode("n1", "10.0.0.1", corev1.ConditionFalse))
			status, err := Step(e, "cluster", 0).Check(t.Context())
			if tt.kind.ID == "" {
				if err != nil || !status.Done || !strings.Contains(status.Message, "cni plugin not initialized") {
					t.Errorf("%+v, %v", status, err)
				}
				return
			}
			if !problem.Is(err, tt.kind) || status.Done {
				t.Errorf("%+v, %v; want %s", status, err, tt.kind.ID)
			}
		})
	}
}

// TestExistingStaysWithItsContext changes the current context in the middle, as another terminal would.
func TestExistingStaysWithItsContext(t *testing.T) {
	e := existing(t, minesOnly, "v1.36.3", nil)
	if _, err := e.Named(); err != nil {
		t.Fatal(err)
	}
	changed := `{"apiVersion":"v1","kind":"Config","current-context":"other",
		"clusters":[{"name":"mine","cluster":{"server":"https://192.0.2.1"}},
		{"name":"other","cluster":{"server":"https://192.0.2.2"}}],
		"contexts":[{"name":"mine","context":{"cluster":"mine"}},{"name":"other","context":{"cluster":"other"}}]}`
	if err := os.WriteFile(e.opts.Kubeconfig, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := e.Named()
	config, errConfig := e.RESTConfig(t.Context())
	if err != nil || errConfig != nil || info.Context != "mine" || config.Host != "https://192.0.2.1" {
		t.Errorf("%+v, %+v, %v, %v", info, config, err, errConfig)
	}
}

// TestExistingForbidden: a cluster that refuses this user does answer.
func TestExistingForbidden(t *testing.T) {
	e := existing(t, minesOnly, "v1.36.3", nil)
	kube, err := e.client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kube.(*fake.Clientset).PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("nodes"), "", nil)
	})
	if _, err := e.Inspect(t.Context()); !problem.Is(err, problem.ApplyForbidden) {
		t.Errorf("got %v", err)
	}
}
