package apply

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// write is one server-side apply of one object by one field manager, and what is known of the object in the cluster.
type write struct {
	desired *unstructured.Unstructured // as the part wants it; it is not changed
	manager string
	force   bool
	// overlay is the name of the Overlay that sets only fields of the object, or empty; create allows it to create the
	// object.
	overlay string
	create  bool
	// notAwaited says that the object cannot become ready yet.
	notAwaited bool
	beforePods func(context.Context) error // of the Set

	live   *unstructured.Unstructured // as it was read last; nil where it does not exist
	judged bool
	obj    *unstructured.Unstructured // what is sent; set by judge
	change *engine.Change             // nil where nothing changes; set by judge
}

// carriedOut says that the object was as wanted when live was read, or was made so by a write that live is the
// answer to.
func (w *write) carriedOut() bool { return w.judged && w.change == nil && w.live != nil }

// same says that a write and an earlier one want the same, and that the object has not changed between them, other than
// in what is not compared.
func (w *write) same(before *write) bool {
	if w.live == nil || w.manager != before.manager || w.force != before.force ||
		!reflect.DeepEqual(w.desired.Object, before.desired.Object) {
		return false
	}
	return version(w.live) == version(before.live) ||
		w.overlay == "" && w.live.GetUID() == before.live.GetUID() && len(differences(before.live, w.live)) == 0
}

// creation is the change of an object that does not exist.
func (w *write) creation() engine.Change {
	if w.overlay != "" && !w.create {
		return engine.Change{Object: idOf(w.desired).String(), Action: engine.Update, Detail: "it does not exist yet"}
	}
	return engine.Change{Object: idOf(w.desired).String(), Action: engine.Create}
}

// read reads the live object.
func (c *Client) read(ctx context.Context, w *write) (err error) {
	w.live, err = c.get(ctx, w.desired)
	return err
}

// send applies the object, or lets the server compute what it would become, and returns the server's answer. An object
// that was read before is only changed if it is still the same.
func (c *Client) send(ctx context.Context, w *write, dryRun bool) (*unstructured.Unstructured, error) {
	result := w.obj.DeepCopy()
	opts := []client.ApplyOption{client.FieldOwner(w.manager)}
	if w.force {
		opts = append(opts, client.ForceOwnership)
	}
	if dryRun {
		opts = append(opts, client.DryRunAll)
	} else if w.live != nil {
		result.SetUID(w.live.GetUID())
		result.SetResourceVersion(w.live.GetResourceVersion())
	}
	if err := c.api.Apply(ctx, client.ApplyConfigurationFromUnstructured(result), opts...); err != nil {
		return nil, err
	}
	return result, nil
}

// start prepares what is to be sent for an object that was read. An object that the overlay creates is marked.
func (w *write) start() {
	w.obj, w.judged, w.change = w.desired.DeepCopy(), false, nil
	if w.overlay != "" && w.create && (w.live == nil || created(w.live)) {
		annotate(w.obj, AnnotationCreated, "true")
	}
}

// judge computes the change of an object that was read: what is to be sent, and what that changes. Without dryRun the
// change of an object that does not exist is its creation; of one that exists it has to be computed.
//
// Where the server cannot tell yet (a webhook that does not answer, a namespace or a kind that an earlier step brings)
// that is no error: the change is reported with the reason, and the write itself then waits or fails.
func (c *Client) judge(ctx context.Context, w *write, dryRun bool) error {
	w.start()
	if w.live != nil && w.live.GetDeletionTimestamp() != nil {
		change := w.creation()
		change.Detail = "it is being deleted"
		w.change = &change
		return nil // it is judged again when it is gone
	}
	if w.live == nil && (!dryRun || w.overlay != "" && !w.create) {
		change := w.creation()
		w.change, w.judged = &change, true
		return nil
	}
	change, err := c.compare(ctx, w)
	if err != nil {
		return err
	}
	if change == nil && w.overlay != "" && !manages(w.live, w.manager) {
		// The same values set by another manager alone would be removed with it.
		detail := "own the fields as " + w.manager
		change = &engine.Change{Object: idOf(w.desired).String(), Action: engine.Update, Detail: detail}
	}
	w.change, w.judged = change, true
	return nil
}

// compare lets the server compute what a write would change; nil means nothing.
func (c *Client) compare(ctx context.Context, w *write) (*engine.Change, error) {
	change := &engine.Change{Object: idOf(w.obj).String(), Action: engine.Create}
	if w.live != nil {
		change.Action = engine.Update
		if err := c.adopt(w); err != nil {
			return nil, err
		}
		if unchanged(w.obj, w.live) {
			return nil, nil
		}
	}
	result, err := c.send(ctx, w, true)
	switch {
	case err == nil && w.live == nil:
		return change, nil
	case err == nil:
		fields := differences(w.live, result)
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
	case w.live == nil && namespaceMissing(err):
		change.Detail = fmt.Sprintf("namespace %s does not exist yet", w.obj.GetNamespace())
		return change, nil
	}
	if fields := conflicts(err); len(fields) > 0 {
		change.Detail = "conflict: " + strings.Join(fields, "; ")
		return change, nil
	}
	if unanswered(err) {
		// Nothing is known about the object, so nothing may be reported about it.
		return nil, fmt.Errorf("dry run of %s: %w", idOf(w.obj), err)
	}
	if reason, ok := transient(err); ok {
		change.Detail = reason
		return change, nil
	}
	return nil, rejected(w.obj, err)
}

// adopt decides whose the live object is. An object of another lab is refused. One without a lab existed before: it is
// applied to, and marked, so that deleting the part leaves it in the cluster. An Overlay owns fields, not objects.
func (c *Client) adopt(w *write) error {
	if w.overlay != "" {
		return nil
	}
	switch owner := w.live.GetLabels()[LabelName]; owner {
	case c.lab:
		if !adopted(w.live) {
			return nil
		}
	case "":
	default:
		return problem.New(problem.ObjectOfAnotherLab, nil,
			"%s belongs to the lab %s, and this lab is %s", idOf(w.obj), owner, c.lab)
	}
	annotate(w.obj, AnnotationAdopted, "true")
	return nil
}

func created(obj client.Object) bool {
	_, marked := obj.GetAnnotations()[AnnotationCreated]
	return marked
}

func adopted(obj client.Object) bool {
	_, marked := obj.GetAnnotations()[AnnotationAdopted]
	return marked
}

// manages says whether a field manager owns fields of an object.
func manages(obj client.Object, manager string) bool {
	return slices.ContainsFunc(obj.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Manager == manager
	})
}

// conflicts lists the fields that other managers own, as "field .spec.replicas is owned by kubectl-edit"; nil for any
// other error.
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

// uidMismatch says whether the object that was written to was deleted since it was read, or replaced by another.
func uidMismatch(err error) bool {
	return apierrors.IsConflict(err) && strings.Contains(err.Error(), "uid mismatch")
}

// rejected makes a problem of an error that does not go away by itself.
func rejected(obj *unstructured.Unstructured, err error) error {
	what := idOf(obj)
	switch {
	case len(conflicts(err)) > 0:
		return problem.New(problem.ApplyConflict, nil, "%s: %s", what, strings.Join(conflicts(err), "; ")).
			With(fmt.Sprintf("See who set what: `%s`.", showManagers(obj)))
	case kindUnknown(err):
		return problem.New(problem.KindUnknown, err,
			"%s: the cluster does not serve %s of %s", what, obj.GetKind(), obj.GetAPIVersion())
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

// admissionDenied says whether an admission webhook or policy refused a write. Missing rights are answered with 403
// too.
func admissionDenied(err error) bool {
	text := err.Error()
	return strings.Contains(text, "denied the request") || strings.Contains(text, "ValidatingAdmissionPolicy")
}

func namespaceMissing(err error) bool {
	if !apierrors.IsNotFound(err) {
		return false
	}
	var status apierrors.APIStatus
	return errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces"
}
