package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// The pauses between attempts. The first is short: most of what is waited for here
// (a CRD served, a webhook's endpoint) comes within a second.
const (
	firstPause = 100 * time.Millisecond
	longPause  = time.Second
)

// passing tells whether an error is one that goes away by itself, and says what is
// being waited for.
func passing(err error) (reason string, ok bool) {
	text := err.Error()
	switch {
	case errors.Is(err, errNotServedYet):
		return errNotServedYet.Error(), true
	case webhookSilent(err):
		return "a webhook does not answer yet: " + afterLast(text, "failed calling webhook "), true
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return "its namespace is still being deleted", true
	case apierrors.IsConflict(err) && len(conflicts(err)) == 0 && !strings.Contains(text, "uid mismatch"), apierrors.IsAlreadyExists(err):
		return "another client wrote it at the same moment", true
	case apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsTooManyRequests(err),
		apierrors.IsServiceUnavailable(err), apierrors.IsUnexpectedServerError(err):
		return "the API server is busy: " + text, true
	case noConnection(err):
		return "the API server does not answer: " + text, true
	case stillStarting(err):
		return "the API server is still starting: " + text, true
	case apierrors.IsInternalError(err) && (strings.Contains(text, "etcdserver:") || strings.Contains(text, "leader changed")):
		return "etcd is busy: " + text, true
	default:
		return "", false
	}
}

// unanswered tells whether the request got no answer at all, because the API server is down or still starting.
func unanswered(err error) bool {
	return noConnection(err) || stillStarting(err)
}

// noConnection also knows a server that takes connections and is too busy starting to greet: net/http gives up on it
// after ten seconds with an error whose type is not exported (net/http, transport.go).
// And one that ended in the middle of its answer, which client-go wraps (rest/request.go).
func noConnection(err error) bool {
	return utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err) ||
		errors.Is(err, io.ErrUnexpectedEOF) || utilnet.IsHTTP2ConnectionLost(err) ||
		strings.Contains(err.Error(), "net/http: TLS handshake timeout")
}

func stillStarting(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "not yet ready to handle request")
}

// webhookSilent tells whether the API server could not reach an admission or a
// conversion webhook, rather than having been refused by it. A webhook's Pod is Ready
// before its Service has endpoints and before its certificate is in the webhook's
// configuration, so that only a write through it tells that it answers.
func webhookSilent(err error) bool {
	text := err.Error()
	return apierrors.IsInternalError(err) && strings.Contains(text, "failed calling webhook") ||
		strings.Contains(text, "conversion webhook for ") && strings.Contains(text, " failed:")
}

func afterLast(text, mark string) string {
	if i := strings.LastIndex(text, mark); i >= 0 {
		return text[i+len(mark):]
	}
	return text
}

// gotOn is how long an attempt must have run for its failure to be the first of a new series: a server that does not
// answer refuses at once, so that what has been at work for longer than this had its answers until then.
const gotOn = 10 * time.Second

// Retry runs f again for as long as it fails with something that goes away by itself, such as an API server that is
// being restarted: until ctx ends, and for at most patience after the first failure of a series. However long f was at
// work before that, it does not count. The last failure is returned.
func Retry(ctx context.Context, patience time.Duration, f func(context.Context) error) error {
	var failing time.Time // since when
	pause := firstPause
	for {
		began := time.Now()
		err := f(ctx)
		if err == nil {
			return nil
		}
		reason, again := passing(err)
		if !again {
			return err
		}
		if failing.IsZero() || time.Since(began) >= gotOn {
			failing, pause = time.Now(), firstPause
		}
		engine.Progress(ctx, "%s", reason)
		if time.Since(failing)+pause > patience || wait(ctx, pause) != nil {
			return err
		}
		pause = min(2*pause, longPause)
	}
}

// write applies an object and sees passing obstacles through until the context ends.
func (c *Client) write(ctx context.Context, w write) (*unstructured.Unstructured, error) {
	var result *unstructured.Unstructured
	err := persist(ctx, w.obj, func() (err error) {
		result, err = c.send(ctx, w, false)
		switch {
		case err == nil:
			return nil
		case kindUnknown(err) && c.crdServesSoon(ctx, w.obj):
			return errNotServedYet
		case isPassing(err) || ctx.Err() != nil:
			return err
		default:
			return rejected(w.obj, err)
		}
	})
	return result, err
}

// errNotServedYet is a kind whose CRD is in the cluster, a moment before the API
// server serves it.
var errNotServedYet = errors.New("its CRD is there, but not served yet")

// persist calls try until it succeeds, fails for good, or the context ends.
func persist(ctx context.Context, obj *unstructured.Unstructured, try func() error) error {
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := try()
		if err == nil {
			return nil
		}
		reason, again := passing(err)
		switch {
		case ctx.Err() == nil && !again:
			return err
		case again:
			engine.Progress(ctx, "%s: %s", idOf(obj), reason)
		}
		if wait(ctx, pause) != nil {
			return expired(ctx, obj, reason, err)
		}
	}
}

func isPassing(err error) bool {
	_, ok := passing(err)
	return ok
}

// expired says what an apply was waiting for when its time was up.
func expired(ctx context.Context, obj *unstructured.Unstructured, reason string, last error) error {
	switch {
	case reason == "", interrupted(ctx):
		return fmt.Errorf("applying %s: %w", idOf(obj), context.Cause(ctx))
	case webhookSilent(last):
		return problem.New(problem.WebhookSilent, context.Cause(ctx), "applying %s: %s", idOf(obj), reason)
	default:
		return problem.New(problem.NotReady, context.Cause(ctx), "applying %s: %s", idOf(obj), reason)
	}
}

// crdServesSoon tells whether a CRD for the object's kind is in the cluster, so that
// the kind's being unknown is a matter of a moment.
func (c *Client) crdServesSoon(ctx context.Context, obj *unstructured.Unstructured) bool {
	crds := &unstructured.UnstructuredList{}
	crds.SetAPIVersion("apiextensions.k8s.io/v1")
	crds.SetKind("CustomResourceDefinitionList")
	if err := c.api.List(ctx, crds); err != nil {
		return false
	}
	for _, crd := range crds.Items {
		group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
		if group == obj.GroupVersionKind().Group && kind == obj.GetKind() && crd.GetDeletionTimestamp() == nil {
			return servesVersion(crd, obj.GroupVersionKind().Version)
		}
	}
	return false
}

func servesVersion(crd unstructured.Unstructured, version string) bool {
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		if v, ok := v.(map[string]any); ok && v["name"] == version && v["served"] == true {
			return true
		}
	}
	return false
}

// wait returns nil after d, or an error as soon as the context ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
