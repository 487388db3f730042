package lb

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	"ambientlab/internal/engine"
)

// TestMountCertificate: the controller's pod is annotated once the Secret holds a certificate, once for each version of
// the Secret, and no other pod is.
func TestMountCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := func(name, component string) *corev1.Pod {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
				Name: name, Namespace: Namespace, Annotations: map[string]string{"own": "kept"},
				Labels: map[string]string{"app": "metallb", "component": component},
			}}
		}
		kube := fake.NewClientset(pod("controller-1", "controller"), pod("speaker-1", "speaker"))
		secrets, pods := kube.CoreV1().Secrets(Namespace), kube.CoreV1().Pods(Namespace)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go MountCertificate(ctx, kube)
		annotations := func(name string) map[string]string {
			t.Helper()
			time.Sleep(2 * lookAgain) // of synctest's fake time
			found, err := pods.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return found.Annotations
		}
		patches := func() (count int) {
			for _, action := range kube.Actions() {
				if action.GetVerb() == "patch" {
					count++
				}
			}
			return count
		}
		want := map[string]string{"own": "kept"}
		check := func(when string, patched int) {
			t.Helper()
			if got := annotations("controller-1"); !maps.Equal(got, want) || patches() != patched {
				t.Errorf("%s: annotations %v after %d patches, want %v after %d", when, got, patches(), want, patched)
			}
		}
		check("without a Secret", 0)
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: webhookSecret, ResourceVersion: "41"}}
		if _, err := secrets.Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		check("with an empty Secret", 0)
		for i, version := range []string{"42", "43"} {
			secret.ResourceVersion, secret.Data = version, map[string][]byte{corev1.TLSCertKey: []byte(version)}
			if _, err := secrets.Update(ctx, secret, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			want[mountedAnnotation] = version
			check("with version "+version, i+1)
			check("with version "+version+", later", i+1)
		}
		if got := annotations("speaker-1"); len(got) != 1 {
			t.Errorf("the speaker's pod has annotations %v", got)
		}
	})
}

type sink func(engine.Event)

func (s sink) Handle(event engine.Event) { s(event) }

// TestMountCertificateTellsOnce: what cannot be done is told once, and tried again. A MetalLB without a webhook is no
// failure.
func TestMountCertificateTellsOnce(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	for failure, want := range map[error]int{
		apierrors.NewForbidden(secrets, webhookSecret, errors.New("not yours")): 1,
		apierrors.NewNotFound(secrets, webhookSecret):                           0,
	} {
		synctest.Test(t, func(t *testing.T) {
			kube, asked := fake.NewClientset(), 0
			kube.PrependReactor("get", "secrets", func(kubetesting.Action) (bool, runtime.Object, error) {
				asked++
				return true, nil, failure
			})
			var told []string
			e := &engine.Engine{Sink: sink(func(event engine.Event) {
				if event.Kind == engine.Note {
					told = append(told, event.Message)
				}
			})}
			_, err := e.Apply(t.Context(), engine.Plan{Name: "p", Steps: []engine.Step{{
				ID: "pool",
				Check: func(context.Context) (engine.Status, error) {
					return engine.Status{Done: asked > 0}, nil
				},
				Do: func(ctx context.Context) error {
					ctx, stop := context.WithTimeout(ctx, 5*lookAgain+lookAgain/2)
					defer stop()
					MountCertificate(ctx, kube)
					return nil
				},
			}}})
			if err != nil || asked != 5 || len(told) != want {
				t.Errorf("%v: %v, asked %d times, told %q", failure, err, asked, told)
			}
		})
	}
}
