package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ambientlab/internal/problem"
)

// status makes an error as the API server sends it.
func status(code int32, reason metav1.StatusReason, message string, causes ...metav1.StatusCause) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
		Details: &metav1.StatusDetails{Causes: causes},
	}}
}

func silentWebhook() error {
	return status(http.StatusInternalServerError, metav1.StatusReasonInternalError,
		`Internal error occurred: failed calling webhook "validation.istio.io": failed to call webhook: Post `+
			`"https://istiod.istio-system.svc:443/validate?timeout=10s": no endpoints available for service "istiod"`)
}

func TestPassing(t *testing.T) {
	configMaps := schema.GroupResource{Resource: "configmaps"}
	for name, tc := range map[string]struct {
		err  error
		want string // of the reason; "" where the error does not pass
	}{
		"webhook": {silentWebhook(), `a webhook does not answer yet: "validation.istio.io"`},
		"wrapped": {fmt.Errorf("reading: %w", silentWebhook()), "a webhook does not answer yet"},
		"conversion": {
			status(500, metav1.StatusReasonInternalError,
				"conversion webhook for metallb.io/v1beta1, Kind=BGPPeer failed: Post: EOF"), "a webhook",
		},
		"terminating": {
			status(403, metav1.StatusReasonForbidden, "forbidden", metav1.StatusCause{Type: "NamespaceTerminating"}),
			"its namespace is still being deleted",
		},
		"refused by a webhook": {
			status(403, metav1.StatusReasonForbidden, `admission webhook "x" denied the request: no`), "",
		},
		"field conflict": {conflictWith("kubectl"), ""},
		"write conflict": {
			apierrors.NewConflict(configMaps, "a", errors.New("the object has been modified")),
			"another client",
		},
		"another object":        {apierrors.NewConflict(configMaps, "a", errors.New("uid mismatch: x")), ""},
		"created meanwhile":     {apierrors.NewAlreadyExists(configMaps, "a"), "another client"},
		"too many requests":     {apierrors.NewTooManyRequests("slow", 1), "the API server is busy"},
		"API server restarting": {fmt.Errorf("dial: %w", syscall.ECONNREFUSED), "the API server does not answer"},
		"half an answer": {
			fmt.Errorf("reading response body: %w", io.ErrUnexpectedEOF),
			"the API server does not answer",
		},
		"no greeting": {
			errors.New("Patch \"https://127.0.0.1:1\": net/http: TLS handshake timeout"),
			"the API server does not answer",
		},
		"closed by another request": {
			errors.New("Get \"https://127.0.0.1:1\": http2: client connection force closed via ClientConn.Close"),
			"the API server does not answer",
		},
		"still starting": {
			status(403, metav1.StatusReasonForbidden, "not yet ready to handle request"),
			"the API server is still starting",
		},
		"etcd":    {status(500, metav1.StatusReasonInternalError, "etcdserver: request timed out"), "etcd is busy"},
		"invalid": {status(422, metav1.StatusReasonInvalid, "spec.x: Required value"), ""},
		"missing": {apierrors.NewNotFound(configMaps, "a"), ""},
	} {
		reason, ok := transient(tc.err)
		if ok != (tc.want != "") || !strings.Contains(reason, tc.want) {
			t.Errorf("%s: got %q, %v", name, reason, ok)
		}
	}
}

func conflictWith(manager string) error {
	return apierrors.NewApplyConflict([]metav1.StatusCause{{
		Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "` + manager + `" using apps/v1`,
		Field: ".spec.replicas",
	}}, "Apply failed with 1 conflict")
}

func TestRejected(t *testing.T) {
	obj := objects(t, configMap("a", "k", "1"))[0]
	for name, tc := range map[string]struct {
		err  error
		kind problem.Kind
		want string
	}{
		"conflict": {
			conflictWith("kubectl-scale"), problem.ApplyConflict,
			"field .spec.replicas is owned by kubectl-scale",
		},
		"rights": {
			status(403, metav1.StatusReasonForbidden, "User x cannot patch"), problem.ApplyForbidden,
			"cannot patch",
		},
		"admission": {
			status(403, metav1.StatusReasonForbidden, `admission webhook "x" denied the request: no`),
			problem.ApplyRejected, "denied",
		},
		"no kind": {
			&meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: "ConfigMap"}}, problem.KindUnknown,
			"does not serve",
		},
		"bare 404": {
			status(404, metav1.StatusReasonNotFound, "the server could not find the requested resource"),
			problem.KindUnknown, "does not serve",
		},
		"invalid": {
			status(422, metav1.StatusReasonInvalid, "spec.x: Required value"), problem.ApplyRejected,
			"Required value",
		},
	} {
		if err := rejected(obj, tc.err); !problem.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := showManagers(
		objects(t, "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: d}\n")[0]); got !=
		"kubectl -n d get gateway.networking.istio.io g --show-managed-fields -o yaml" {
		t.Error(got)
	}
}

// scripted is a client whose server-side applies are answered by f; nothing is real.
func scripted(f func(dryRun bool) error, known ...client.Object) *Client {
	c := offline()
	scheme := runtime.NewScheme()
	c.api = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(c.mapper).
		WithObjects(known...).Build(), interceptor.Funcs{
		Apply: func(
			_ context.Context, _ client.WithWatch, _ runtime.ApplyConfiguration, opts ...client.ApplyOption,
		) error {
			o := &client.ApplyOptions{}
			o.ApplyOptions(opts)
			return f(len(o.DryRun) > 0)
		},
	})
	c.resources = func(context.Context) ([]*metav1.APIResourceList, error) { return nil, nil }
	return c
}

func TestApplySeesASilentWebhookThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		c := scripted(func(bool) error {
			if attempts++; attempts <= 5 {
				return silentWebhook()
			}
			return nil
		})
		start := time.Now()
		changes, err := c.Apply(t.Context(), Set{Name: "p", Objects: objects(t, configMap("a", "k", "1"))})
		if err != nil || len(changes) != 1 || attempts != 6 {
			t.Errorf("%v %v after %d attempts", changes, err, attempts)
		}
		if waited := time.Since(start); waited > 4*time.Second {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestApplyEndsWithTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scripted(func(bool) error { return silentWebhook() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := c.Apply(ctx, Set{Name: "p", Objects: objects(t, configMap("a", "k", "1"))})
		if !problem.Is(err, problem.WebhookSilent) || !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), `no endpoints available for service "istiod"`) {
			t.Errorf("got %v", err)
		}
	})
}

func TestApplyEndsForAWebhookWithoutService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		c := scripted(func(bool) error {
			attempts++
			return apierrors.NewInternalError(errors.New(`failed calling webhook "v.test": failed to call webhook: ` +
				`Post "https://gone.x.svc:443/v?timeout=10s": service "gone" not found`))
		})
		start := time.Now()
		_, err := c.Apply(t.Context(), Set{Name: "p", Objects: objects(t, configMap("a", "k", "1"))})
		if !problem.Is(err, problem.WebhookSilent) || !strings.Contains(fmt.Sprint(err), `service "gone" not found`) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took < orphanLimit || took > orphanLimit+2*longestPause || attempts < 2 {
			t.Errorf("it ended after %s and %d attempts", took, attempts)
		}
	})
}

func TestApplyStopsAtOnceWhenCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := scripted(func(bool) error { return silentWebhook() })
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1050*time.Millisecond, func() { cancel(errors.New("interrupted by the user")) })
		start := time.Now()
		_, err := c.Apply(ctx, Set{Name: "p", Objects: objects(t, configMap("a", "k", "1"))})
		if err == nil || !strings.Contains(err.Error(), "interrupted by the user") {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(start); waited != 1050*time.Millisecond {
			t.Errorf("returned after %v", waited)
		}
	})
}

func TestApplyTriesEveryObjectOfAStage(t *testing.T) {
	c := scripted(func(bool) error { return conflictWith("kubectl-edit") })
	_, err := c.Apply(t.Context(), Set{Name: "p", Objects: objects(t, configMap("a", "k", "1")+configMap("b", "k", "1")+
		"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: later}\n")})
	if got := problem.All(err); len(got) != 2 || strings.Contains(err.Error(), "later") {
		t.Errorf("got %d problems: %v", len(got), err)
	}
}

// The patience is for a server that does not answer, and not for the time before or between its failures.
func TestRetryCountsFromTheFirstFailure(t *testing.T) {
	refused := fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	const patience = 90 * time.Second
	for name, tc := range map[string]struct {
		attempts []time.Duration // how long each works before it is refused; the last one succeeds
		want     error
		lasts    time.Duration // at most
	}{
		"at work for long before the first": {[]time.Duration{2 * time.Minute, 0, 0}, nil, 2*time.Minute + time.Second},
		"refused twice, and long between": {
			[]time.Duration{2 * time.Minute, 0, 80 * time.Second, 0, 80 * time.Second, 0, 0}, nil, 5 * time.Minute,
		},
		"never again": {make([]time.Duration, 1000), refused, patience},
		"reset, which client-go repeats for ten seconds": {
			slices.Repeat([]time.Duration{11 * time.Second}, 1000), refused, patience + 11*time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempt := 0
				start := time.Now()
				err := Retry(t.Context(), patience, func(ctx context.Context) error {
					if err := sleep(ctx, tc.attempts[attempt]); err != nil {
						return err
					}
					if attempt++; attempt == len(tc.attempts) {
						return nil
					}
					return refused
				})
				if !errors.Is(err, tc.want) {
					t.Errorf("got %v", err)
				}
				if lasted := time.Since(start); lasted > tc.lasts+tc.attempts[0] || tc.want != nil &&
					lasted < tc.lasts-2*longestPause-tc.attempts[0] {
					t.Errorf("lasted %v", lasted)
				}
			})
		})
	}
}
