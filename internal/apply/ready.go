package apply

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ambientlab/internal/problem"
)

// state is what an object's own status says of it. failed means that waiting longer
// is of no use.
type state struct {
	done, failed bool
	message      string
	// kind is the problem that it is when it lasts; none means that it is merely not ready.
	kind problem.Kind
	// patience is how long the state may last before it counts as failed; 0 is for ever.
	patience time.Duration
}

func waiting(format string, args ...any) state { return state{message: fmt.Sprintf(format, args...)} }

func failed(format string, args ...any) state {
	return state{failed: true, message: fmt.Sprintf(format, args...)}
}

// judges maps the kinds that have a readiness of their own to what reads it. Objects
// of all other kinds are ready once they exist. There is one file per kind.
func judges() map[schema.GroupKind]func(*unstructured.Unstructured) state {
	return map[schema.GroupKind]func(*unstructured.Unstructured) state{
		{Group: "apps", Kind: "Deployment"}:                   typed(deploymentState),
		{Group: "apps", Kind: "DaemonSet"}:                    typed(daemonSetState),
		{Group: "apps", Kind: "StatefulSet"}:                  typed(statefulSetState),
		{Group: "", Kind: "Pod"}:                              typed(podState),
		{Group: "", Kind: "Service"}:                          typed(serviceState),
		{Group: "", Kind: "Namespace"}:                        typed(namespaceState),
		{Group: "", Kind: "PersistentVolumeClaim"}:            typed(claimState),
		{Group: "batch", Kind: "Job"}:                         typed(jobState),
		crdKind():                                             typed(crdState),
		{Group: gatewayGroup, Kind: "Gateway"}:                gatewayState,
		{Group: gatewayGroup, Kind: "GatewayClass"}:           gatewayClassState,
		{Group: gatewayGroup, Kind: "HTTPRoute"}:              routeState,
		{Group: gatewayGroup, Kind: "GRPCRoute"}:              routeState,
		{Group: "apiregistration.k8s.io", Kind: "APIService"}: apiServiceState,
	}
}

// typed makes a judge of unstructured objects of one of a typed object.
func typed[T any](judge func(*T) state) func(*unstructured.Unstructured) state {
	return func(obj *unstructured.Unstructured) state {
		into := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into); err != nil {
			return waiting("its status cannot be read: %v", err)
		}
		return judge(into)
	}
}

// look reads an object and says whether it is ready. Besides its own status, two kinds
// are judged by what stands behind them: a Gateway by the Deployment that its
// controller makes (both of a Gateway's conditions are True while its only pod cannot
// pull its image), and a webhook by its Service's endpoints.
func (c *Client) look(ctx context.Context, obj *unstructured.Unstructured, set []*unstructured.Unstructured) (state, error) {
	live, err := c.get(ctx, obj)
	switch {
	case err != nil:
		return state{}, err
	case live == nil:
		return waiting("it does not exist"), nil
	case live.GetDeletionTimestamp() != nil:
		return waiting("it is being deleted%s", finalizers(live)), nil
	}
	gk := obj.GroupVersionKind().GroupKind()
	isGateway := gk == schema.GroupKind{Group: gatewayGroup, Kind: "Gateway"}
	if judge, ok := judges()[gk]; ok {
		if s := judge(live); !s.done {
			if isGateway {
				return c.overlooked(ctx, live, s)
			}
			return s, nil
		}
	}
	switch {
	case isGateway:
		return c.gatewayWorkload(ctx, live)
	case isWebhookConfiguration(gk):
		return c.webhookBackend(ctx, live, set)
	default:
		return state{done: true}, nil
	}
}

// Ready says right now why the Set is not ready, or "" when it is. The reason names
// the first object that is not, in the order of application, with what its pods say.
func (c *Client) Ready(ctx context.Context, set Set) (string, error) {
	objs, err := c.objects(set)
	if err != nil {
		return "", err
	}
	open, err := c.survey(ctx, objs, objs)
	if err != nil || len(open) == 0 {
		return "", err
	}
	return c.explain(ctx, open).Seen, nil
}

// unready is an object that is not ready, and what its status says of that.
type unready struct {
	obj *unstructured.Unstructured
	state
}

// survey looks at objects and gives those that are not ready, in their order.
func (c *Client) survey(ctx context.Context, objs, set []*unstructured.Unstructured) ([]unready, error) {
	states := make([]state, len(objs))
	err := each(ctx, len(objs), func(ctx context.Context, i int) (err error) {
		states[i], err = c.look(ctx, objs[i], set)
		return err
	})
	if err != nil {
		return nil, err
	}
	var open []unready
	for i, s := range states {
		if !s.done {
			open = append(open, unready{objs[i], s})
		}
	}
	return open, nil
}

// explain says why objects are not ready: the first in full, the others counted. One
// that failed for good, or will have before long, comes before those that may still
// become ready.
func (c *Client) explain(ctx context.Context, open []unready) *problem.Problem {
	first := open[0]
	for _, u := range open {
		if u.failed || u.patience > 0 {
			first = u
			break
		}
	}
	found := c.diagnose(ctx, first)
	found.Seen = fmt.Sprintf("%s: %s", idOf(first.obj), found.Seen)
	if more := len(open) - 1; more > 0 {
		found.Seen += fmt.Sprintf(" (and %d more not ready)", more)
	}
	return found
}

// condition gives a condition of an object as the API conventions have them. stale
// means that it was observed of an older generation of the object.
func condition(obj *unstructured.Unstructured, conditions []any, kind string) (status, message string, stale bool) {
	for _, entry := range conditions {
		c, _ := entry.(map[string]any)
		if c["type"] != kind {
			continue
		}
		status, _ = c["status"].(string)
		message, _ = c["message"].(string)
		if reason, ok := c["reason"].(string); ok && reason != "" {
			message = strings.TrimSuffix(reason+": "+message, ": ")
		}
		observed, found := c["observedGeneration"].(int64)
		return status, message, found && observed < obj.GetGeneration()
	}
	return "", "", false
}

// requireConditions is done when every condition of a list is True and current.
func requireConditions(obj *unstructured.Unstructured, conditions []any, kinds ...string) state {
	for _, kind := range kinds {
		status, message, stale := condition(obj, conditions, kind)
		switch {
		case status == "":
			return waiting("its controller has not said yet whether it is %s", kind)
		case stale:
			return waiting("its controller has not seen its latest change yet")
		case status != string(corev1.ConditionTrue):
			return waiting("%s is %s: %s", kind, status, message)
		}
	}
	return state{done: true}
}

func finalizers(obj *unstructured.Unstructured) string {
	if f := obj.GetFinalizers(); len(f) > 0 {
		return ", and waits for its finalizers " + strings.Join(f, ", ")
	}
	return ""
}
