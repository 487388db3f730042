package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// write is one server-side apply of one object by one field manager.
type write struct {
	obj     *unstructured.Unstructured
	manager string
	force   bool
}

// send applies the object, or has the server say what it would become, and returns
// what the server answers.
func (c *Client) send(ctx context.Context, w write, dryRun bool) (*unstructured.Unstructured, error) {
	result := w.obj.DeepCopy()
	opts := []client.ApplyOption{client.FieldOwner(w.manager)}
	if w.force {
		opts = append(opts, client.ForceOwnership)
	}
	if dryRun {
		opts = append(opts, client.DryRunAll)
	}
	if err := c.api.Apply(ctx, client.ApplyConfigurationFromUnstructured(result), opts...); err != nil {
		return nil, err
	}
	return result, nil
}

// plan asks the server what a write would change of the live object, which is nil where
// there is none: the answer is nil where that is nothing. It marks w.obj as adopted
// where it was there before the lab.
//
// A server that cannot tell yet (a webhook that does not answer, a namespace or a kind
// that a step before this one will bring) is no error: the change is reported with the
// reason, and the write itself is what then waits or fails.
func (c *Client) plan(ctx context.Context, w write, live *unstructured.Unstructured) (*engine.Change, error) {
	change := &engine.Change{Object: idOf(w.obj).String(), Action: engine.Create}
	if live != nil {
		change.Action = engine.Update
		if err := c.adopt(w, live); err != nil {
			return nil, err
		}
		if unchanged(w.obj, live) {
			return nil, nil
		}
	}
	result, err := c.send(ctx, w, true)
	switch {
	case err == nil && live == nil:
		return change, nil
	case err == nil:
		fields := differences(live, result)
		if len(fields) == 0 {
			return nil, nil
		}
		change.Detail = detail(fields)
		return change, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("dry run of %s: %w", idOf(w.obj), context.Cause(ctx))
	case kindUnknown(err):
		change.Detail = "its kind is not served by the cluster yet"
		return change, nil
	case live == nil && namespaceMissing(err):
		change.Detail = fmt.Sprintf("namespace %s does not exist yet", w.obj.GetNamespace())
		return change, nil
	}
	if fields := conflicts(err); len(fields) > 0 {
		change.Detail = "conflict: " + strings.Join(fields, "; ")
		return change, nil
	}
	if unanswered(err) {
		// Nothing is known of the object, so nothing may be said of it.
		return nil, fmt.Errorf("dry run of %s: %w", idOf(w.obj), err)
	}
	if reason, ok := passing(err); ok {
		change.Detail = reason
		return change, nil
	}
	return nil, rejected(w.obj, err)
}

// adopt decides whose the live object is. An object of another lab is refused. One
// without a lab was there before: it is applied to, and marked, so that the lab gives
// it back at the end instead of deleting it.
func (c *Client) adopt(w write, live *unstructured.Unstructured) error {
	obj := w.obj
	if w.manager != ManagedBy {
		return nil // an overlay, which claims fields and not the object
	}
	_, marked := live.GetAnnotations()[AnnotationAdopted]
	switch owner := live.GetLabels()[LabelName]; owner {
	case c.lab:
		if !marked {
			return nil
		}
	case "":
	default:
		return problem.New(problem.ObjectOfAnotherLab, nil, "%s belongs to the lab %s, and this lab is %s", idOf(obj), owner, c.lab)
	}
	annotate(obj, AnnotationAdopted, "true")
	return nil
}

// conflicts lists the fields that other managers own, as "field .spec.replicas is
// owned by kubectl-edit"; nil for any other error.
func conflicts(err error) []string {
	if !apierrors.IsConflict(err) {
		return nil
	}
	var fields []string
	for _, cause := range causes(err) {
		if cause.Type != metav1.CauseTypeFieldManagerConflict {
			continue
		}
		// The server's words: conflict with "kubectl-edit" using apps/v1
		owner := cause.Message
		if _, rest, ok := strings.Cut(owner, `"`); ok {
			owner, _, _ = strings.Cut(rest, `"`)
		}
		fields = append(fields, fmt.Sprintf("field %s is owned by %s", cause.Field, owner))
	}
	return fields
}

func causes(err error) []metav1.StatusCause {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	return status.Status().Details.Causes
}

// rejected makes a problem of an error that no waiting will cure.
func rejected(obj *unstructured.Unstructured, err error) error {
	what := idOf(obj)
	switch {
	case len(conflicts(err)) > 0:
		return problem.New(problem.ApplyConflict, nil, "%s: %s", what, strings.Join(conflicts(err), "; ")).
			With(fmt.Sprintf("See who set what: `%s`.", showManagers(obj)))
	case kindUnknown(err):
		return problem.New(problem.KindUnknown, err, "%s: the cluster does not serve %s of %s", what, obj.GetKind(), obj.GetAPIVersion())
	case namespaceMissing(err):
		return problem.New(problem.ApplyRejected, err, "%s: namespace %s does not exist", what, obj.GetNamespace())
	case apierrors.IsForbidden(err) && !admissionDenied(err), apierrors.IsUnauthorized(err):
		return problem.New(problem.ApplyForbidden, err, "applying %s", what)
	default:
		return problem.New(problem.ApplyRejected, err, "applying %s", what)
	}
}

func showManagers(obj *unstructured.Unstructured) string {
	resource := strings.ToLower(obj.GetKind())
	if group := obj.GroupVersionKind().Group; strings.Contains(group, ".") && !strings.HasSuffix(group, "k8s.io") {
		resource += "." + group
	}
	command := "kubectl"
	if obj.GetNamespace() != "" {
		command += " -n " + obj.GetNamespace()
	}
	return fmt.Sprintf("%s get %s %s --show-managed-fields -o yaml", command, resource, obj.GetName())
}

// admissionDenied tells an admission webhook's or policy's refusal from missing rights:
// the server answers both with 403.
func admissionDenied(err error) bool {
	return strings.Contains(err.Error(), "denied the request") || strings.Contains(err.Error(), "ValidatingAdmissionPolicy")
}

func namespaceMissing(err error) bool {
	if !apierrors.IsNotFound(err) {
		return false
	}
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces"
}
