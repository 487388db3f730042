package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// The pauses between attempts double from the first to the longest. Most of what is waited for here (a CRD to be
// served, a webhook's endpoint) comes within a second.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Second
)

// transient says whether a retry can succeed after an error, and what the retry waits for.
func transient(err error) (reason string, ok bool) {
	text := err.Error()
	switch {
	case errors.Is(err, errNotServedYet), errors.Is(err, errReplaced):
		return text, true
	case webhookSilent(err):
		return "a webhook does not answer yet: " + afterLast(text, "failed calling webhook "), true
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return "its namespace is still being deleted", true
	case apierrors.IsConflict(err) && len(conflicts(err)) == 0 && !uidMismatch(err), apierrors.IsAlreadyExists(err):
		return "another client wrote it at the same moment", true
	case apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsTooManyRequests(err),
		apierrors.IsServiceUnavailable(err), apierrors.IsUnexpectedServerError(err):
		return "the API server is busy: " + text, true
	case noConnection(err):
		return "the API server does not answer: " + text, true
	case stillStarting(err):
		return "the API server is still starting: " + text, true
	case apierrors.IsInternalError(err) && strings.Contains(text, "etcdserver:"),
		apierrors.IsInternalError(err) && strings.Contains(text, "leader changed"):
		return "etcd is busy: " + text, true
	default:
		return "", false
	}
}

// unanswered says whether a request got no answer because the API server is down or still starting.
func unanswered(err error) bool {
	return noConnection(err) || stillStarting(err)
}

// lostConnection lists what net/http says of a connection that failed, where the error has no exported type: a server
// that accepts connections and is too busy for the TLS handshake (transport.go), and a connection that another request
// could not write to and closed, or that never served a request (h2_bundle.go, errClientConnForceClosed and its
// neighbours).
func lostConnection() []string {
	return []string{
		"net/http: TLS handshake timeout",
		"http2: client connection force closed", "http2: client conn is closed", "http2: client conn not usable",
		"http2: client conn could not be established",
	}
}

// noConnection says whether the connection failed. That includes a server that ended in the middle of its answer, which
// client-go wraps (rest/request.go).
func noConnection(err error) bool {
	return utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err) ||
		errors.Is(err, io.ErrUnexpectedEOF) || utilnet.IsHTTP2ConnectionLost(err) ||
		slices.ContainsFunc(lostConnection(), func(text string) bool { return strings.Contains(err.Error(), text) })
}

func stillStarting(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "not yet ready to handle request")
}

// webhookSilent says whether the API server could not reach an admission or a conversion webhook. That differs from a
// webhook's refusal. A webhook's pod is Ready before its Service has endpoints and before its certificate is in the
// webhook's configuration, so only a write that it has to admit shows that it answers.
func webhookSilent(err error) bool {
	text := err.Error()
	return apierrors.IsInternalError(err) && strings.Contains(text, "failed calling webhook") ||
		strings.Contains(text, "conversion webhook for ") && strings.Contains(text, " failed:")
}

// webhookOrphaned says whether the API server could not reach a webhook because its Service does not exist
// (k8s.io/apiserver, pkg/util/proxy/proxy.go).
func webhookOrphaned(err error) bool {
	return webhookSilent(err) && strings.Contains(err.Error(), `service "`) &&
		strings.HasSuffix(err.Error(), `" not found`)
}

func afterLast(text, mark string) string {
	if i := strings.LastIndex(text, mark); i >= 0 {
		return text[i+len(mark):]
	}
	return text
}

// answered is how long an attempt must have run for its failure to be the first of a new series: one that ran for
// longer than this got answers until then. A server that is down refuses at once. Where a port forwarder in front of it
// accepts the connection and then resets it, as Docker's does, client-go asks ten times again, once a second
// (rest/request.go).
const answered = 30 * time.Second

// Retry runs f again for as long as it fails with an error that goes away by itself, such as an API server that is
// being restarted: until ctx ends, and for at most patience after the first failure of a series. The time that f ran
// before its first failure does not count. It returns the last failure.
func Retry(ctx context.Context, patience time.Duration, f func(context.Context) error) error {
	return retry(ctx, patience, "", func() error { return f(ctx) })
}

// retry is Retry, without a limit where patience is 0. subject precedes the reason in what is reported.
func retry(ctx context.Context, patience time.Duration, subject string, f func() error) error {
	var failing time.Time // since when
	pause, told := firstPause, ""
	for {
		began := time.Now()
		err := f()
		if err == nil {
			return nil
		}
		reason, again := transient(err)
		if !again {
			return err
		}
		if failing.IsZero() || time.Since(began) >= answered {
			failing, pause = time.Now(), firstPause
		}
		if reason != told { // others may report in turns with this
			told = reason
			engine.Progress(ctx, "%s%s", subject, reason)
		}
		waited := engine.Waiting(ctx)
		over := patience > 0 && time.Since(failing)+pause > patience || sleep(ctx, pause) != nil
		waited()
		if over {
			return err
		}
		pause = min(2*pause, longestPause)
	}
}

// orphanLimit is how long the Service of a webhook may be missing before a write that the webhook checks fails. The
// part that holds the webhook's configuration may create the Service a moment later.
const orphanLimit = time.Minute

// persist retries a write of an object until the context ends, or until it is clear that a webhook is left over from a
// program that was uninstalled.
func persist(ctx context.Context, obj *unstructured.Unstructured, try func() error) error {
	var orphaned time.Time // since when
	err := retry(ctx, 0, idOf(obj).String()+": ", func() error {
		err := try()
		switch {
		case err == nil || !webhookOrphaned(err):
			orphaned = time.Time{}
		case orphaned.IsZero():
			orphaned = time.Now()
		case time.Since(orphaned) >= orphanLimit:
			return problem.New(problem.WebhookSilent, nil, "applying %s: %s: it has not existed for %s", idOf(obj),
				afterLast(err.Error(), "failed calling webhook "), orphanLimit)
		}
		return err
	})
	if err == nil || ctx.Err() == nil {
		return err
	}
	reason, _ := transient(err)
	return expired(ctx, obj, reason, err)
}

// errNotServedYet is for a kind whose CRD is in the cluster and which the API server does not serve yet.
var errNotServedYet = errors.New("its CRD exists, and the API server does not serve it yet")

// errReplaced is for an object that was deleted after it was read.
var errReplaced = errors.New("another client deleted it at the same moment")

func isTransient(err error) bool {
	_, ok := transient(err)
	return ok
}

// expired says what a write was waiting for when its time was up.
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

// crdServesSoon says whether a CRD for the object's kind is in the cluster, so that the API server will serve the kind
// soon.
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

// sleep returns nil after d, or the context's cause as soon as the context ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
