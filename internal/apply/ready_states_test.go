package apply

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// said writes a state as "ready", "failed: reason" or the reason.
func said(s State) string {
	switch {
	case s.Ready && !s.Failed && s.Message == "":
		return "ready"
	case s.Failed && !s.Ready:
		return "failed: " + s.Message
	case !s.Ready:
		return s.Message
	}
	return "a state that contradicts itself: " + s.Message
}

func is(t *testing.T, name string, s State, want string) {
	t.Helper()
	if got := said(s); got != want {
		t.Errorf("%s: %s, want %s", name, got, want)
	}
}

// A Deployment is ready from the last replica on, not before it, whatever the controller saw last.
func TestDeploymentStates(t *testing.T) {
	status := func(observed int64, all, updated, available int32) appsv1.DeploymentStatus {
		return appsv1.DeploymentStatus{
			ObservedGeneration: observed, Replicas: all, UpdatedReplicas: updated, AvailableReplicas: available,
		}
	}
	for name, tc := range map[string]struct {
		replicas *int32
		status   appsv1.DeploymentStatus
		want     string
	}{
		"all":                 {ptr.To[int32](3), status(5, 3, 3, 3), "ready"},
		"more than all":       {ptr.To[int32](3), status(6, 3, 3, 4), "ready"},
		"not set means one":   {nil, status(5, 1, 1, 1), "ready"},
		"not set, none":       {nil, status(5, 1, 1, 0), "0 of 1 replicas are available"},
		"zero":                {ptr.To[int32](0), status(5, 0, 0, 0), "ready"},
		"an older generation": {ptr.To[int32](3), status(4, 3, 3, 3), staleStatus},
		"one is of before": {
			ptr.To[int32](3), status(5, 3, 2, 3),
			"2 of 3 replicas are of the current template",
		},
		"one of before is left": {
			ptr.To[int32](3), status(5, 4, 3, 4),
			"1 replicas of the former template are still being deleted",
		},
		"one is not available": {ptr.To[int32](3), status(5, 3, 3, 2), "2 of 3 replicas are available"},
		"scaled to zero, one left": {
			ptr.To[int32](0), status(5, 1, 0, 1),
			"1 replicas of the former template are still being deleted",
		},
	} {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Generation: 5}, Status: tc.status}
		d.Spec.Replicas = tc.replicas
		is(t, name, DeploymentState(d), tc.want)
	}
	d := &appsv1.Deployment{}
	d.Status.Conditions = []appsv1.DeploymentCondition{
		{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Message: "is available"},
		{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionFalse, Message: "was in the past"},
	}
	is(t, "no failure", DeploymentState(d), "0 of 1 replicas are of the current template")
	d.Status.Conditions[1] = appsv1.DeploymentCondition{
		Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota",
	}
	is(t, "a failure", DeploymentState(d), "0 of 1 replicas are of the current template: exceeded quota")
}

func TestDaemonSetStates(t *testing.T) {
	status := func(observed int64, desired, current, updated, available int32) appsv1.DaemonSetStatus {
		return appsv1.DaemonSetStatus{
			ObservedGeneration: observed, DesiredNumberScheduled: desired, CurrentNumberScheduled: current,
			UpdatedNumberScheduled: updated, NumberAvailable: available,
		}
	}
	const onDelete, rolling = appsv1.OnDeleteDaemonSetStrategyType, appsv1.RollingUpdateDaemonSetStrategyType
	for name, tc := range map[string]struct {
		strategy appsv1.DaemonSetUpdateStrategyType
		status   appsv1.DaemonSetStatus
		want     string
	}{
		"all":                   {rolling, status(5, 3, 3, 3, 3), "ready"},
		"no nodes":              {rolling, status(5, 0, 0, 0, 0), "ready"},
		"an older generation":   {rolling, status(4, 3, 3, 3, 3), staleStatus},
		"a newer generation":    {rolling, status(6, 3, 3, 3, 3), "ready"},
		"a node without":        {rolling, status(5, 3, 2, 2, 2), "2 of 3 nodes have its pod"},
		"an old pod":            {rolling, status(5, 3, 3, 2, 3), "on 2 of 3 nodes its pod is of the current template"},
		"an old pod that stays": {onDelete, status(5, 3, 3, 2, 3), "ready"},
		"one is not available":  {rolling, status(5, 3, 3, 3, 2), "on 2 of 3 nodes its pod is available"},
	} {
		d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Generation: 5}, Status: tc.status}
		d.Spec.UpdateStrategy.Type = tc.strategy
		is(t, name, daemonSetState(d), tc.want)
	}
}

func TestStatefulSetStates(t *testing.T) {
	status := func(observed int64, ready, updated int32, revision string) appsv1.StatefulSetStatus {
		return appsv1.StatefulSetStatus{
			ObservedGeneration: observed, ReadyReplicas: ready, UpdatedReplicas: updated,
			CurrentRevision: "old", UpdateRevision: revision,
		}
	}
	const onDelete, rolling = appsv1.OnDeleteStatefulSetStrategyType, appsv1.RollingUpdateStatefulSetStrategyType
	for name, tc := range map[string]struct {
		strategy appsv1.StatefulSetUpdateStrategyType
		status   appsv1.StatefulSetStatus
		want     string
	}{
		"all":                         {rolling, status(5, 3, 3, "new"), "ready"},
		"all, and none to update":     {rolling, status(5, 3, 0, "old"), "ready"},
		"an older generation":         {rolling, status(4, 3, 3, "new"), staleStatus},
		"a newer generation":          {rolling, status(6, 3, 3, "new"), "ready"},
		"one is not ready":            {rolling, status(5, 2, 3, "new"), "2 of 3 replicas are ready"},
		"one is of before":            {rolling, status(5, 3, 2, "new"), "2 of 3 replicas are of the current template"},
		"one is of before, and stays": {onDelete, status(5, 3, 2, "new"), "ready"},
	} {
		s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Generation: 5}, Status: tc.status}
		s.Spec.Replicas, s.Spec.UpdateStrategy.Type = ptr.To[int32](3), tc.strategy
		is(t, name, statefulSetState(s), tc.want)
	}
}

func TestPodStates(t *testing.T) {
	for name, tc := range map[string]struct {
		status corev1.PodStatus
		want   string
	}{
		"ready": {
			corev1.PodStatus{
				Phase:      corev1.PodRunning,
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			},
			"ready",
		},
		"not ready": {
			corev1.PodStatus{
				Phase:      corev1.PodRunning,
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}},
			},
			"it is Running",
		},
		"another condition": {
			corev1.PodStatus{
				Phase:      corev1.PodPending,
				Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}},
			},
			"it is Pending",
		},
		"no kubelet": {corev1.PodStatus{}, "it is not seen by a kubelet yet"},
		"succeeded":  {corev1.PodStatus{Phase: corev1.PodSucceeded}, "ready"},
		"failed":     {corev1.PodStatus{Phase: corev1.PodFailed}, "failed: it failed"},
		"failed, a reason": {
			corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"},
			"failed: it failed: Evicted ",
		},
		"failed, a message": {
			corev1.PodStatus{Phase: corev1.PodFailed, Message: "low on memory"},
			"failed: it failed:  low on memory",
		},
		"failed, with both": {
			corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "low"},
			"failed: it failed: Evicted low",
		},
		"unknown": {corev1.PodStatus{Phase: corev1.PodUnknown}, "it is Unknown"},
	} {
		is(t, name, PodState(&corev1.Pod{Status: tc.status}), tc.want)
	}
}

func TestJobStates(t *testing.T) {
	condition := func(kind batchv1.JobConditionType, status corev1.ConditionStatus) batchv1.JobCondition {
		return batchv1.JobCondition{Type: kind, Status: status, Reason: "R", Message: "M"}
	}
	const yes, no = corev1.ConditionTrue, corev1.ConditionFalse
	for name, tc := range map[string]struct {
		conditions []batchv1.JobCondition
		want       string
	}{
		"running":   {nil, "2 pods run, 1 succeeded, 3 failed"},
		"complete":  {[]batchv1.JobCondition{condition(batchv1.JobComplete, yes)}, "ready"},
		"success":   {[]batchv1.JobCondition{condition(batchv1.JobSuccessCriteriaMet, yes)}, "ready"},
		"failed":    {[]batchv1.JobCondition{condition(batchv1.JobFailed, yes)}, "failed: it failed: R: M"},
		"suspended": {[]batchv1.JobCondition{condition(batchv1.JobSuspended, yes)}, "it is suspended"},
		"resumed": {
			[]batchv1.JobCondition{condition(batchv1.JobSuspended, no)},
			"2 pods run, 1 succeeded, 3 failed",
		},
		"resumed, and complete": {[]batchv1.JobCondition{
			condition(batchv1.JobSuspended, no),
			condition(batchv1.JobComplete, yes),
		}, "ready"},
	} {
		j := &batchv1.Job{Status: batchv1.JobStatus{Conditions: tc.conditions, Active: 2, Succeeded: 1, Failed: 3}}
		is(t, name, jobState(j), tc.want)
	}
}

func TestServiceStates(t *testing.T) {
	const none = "no load balancer has given it an address"
	for name, tc := range map[string]struct {
		kind    corev1.ServiceType
		ingress []corev1.LoadBalancerIngress
		want    string
	}{
		"of the cluster":   {corev1.ServiceTypeClusterIP, nil, "ready"},
		"of the nodes":     {corev1.ServiceTypeNodePort, nil, "ready"},
		"no address":       {corev1.ServiceTypeLoadBalancer, nil, none},
		"an empty address": {corev1.ServiceTypeLoadBalancer, []corev1.LoadBalancerIngress{{}}, none},
		"an IP address": {
			corev1.ServiceTypeLoadBalancer,
			[]corev1.LoadBalancerIngress{{IP: "192.0.2.1"}},
			"ready",
		},
		"a host name": {corev1.ServiceTypeLoadBalancer, []corev1.LoadBalancerIngress{{Hostname: "lb"}}, "ready"},
		"the second has one": {
			corev1.ServiceTypeLoadBalancer,
			[]corev1.LoadBalancerIngress{{}, {IP: "192.0.2.1"}},
			"ready",
		},
	} {
		s := &corev1.Service{}
		s.Spec.Type, s.Status.LoadBalancer.Ingress = tc.kind, tc.ingress
		is(t, name, ServiceState(s), tc.want)
	}
}

func TestOtherStates(t *testing.T) {
	is(t, "an active namespace", namespaceState(&corev1.Namespace{}), "ready")
	going := &corev1.Namespace{Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}
	is(t, "a namespace that is deleted", namespaceState(going), "it is being deleted")
	claim := &corev1.PersistentVolumeClaim{}
	for phase, want := range map[corev1.PersistentVolumeClaimPhase]string{
		corev1.ClaimPending: "ready", corev1.ClaimBound: "ready", corev1.ClaimLost: "failed: its volume is lost",
	} {
		claim.Status.Phase = phase
		is(t, "a claim that is "+string(phase), claimState(claim), want)
	}
	for name, tc := range map[string]struct {
		conditions []apiextensionsv1.CustomResourceDefinitionCondition
		want       string
	}{
		"new": {nil, "the API server does not serve it yet"},
		"served": {[]apiextensionsv1.CustomResourceDefinitionCondition{
			{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue},
			{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue},
		}, "ready"},
		"not served": {[]apiextensionsv1.CustomResourceDefinitionCondition{
			{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue},
			{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionFalse},
		}, "the API server does not serve it yet"},
		"taken": {[]apiextensionsv1.CustomResourceDefinitionCondition{
			{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue},
			{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionFalse, Reason: "R", Message: "M"},
		}, "failed: its names are taken: R: M"},
	} {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		crd.Status.Conditions = tc.conditions
		is(t, "a CRD, "+name, crdState(crd), tc.want)
	}
	unreadable := typed(PodState)(&unstructured.Unstructured{Object: map[string]any{"status": "x"}})
	if unreadable.Ready || !strings.HasPrefix(unreadable.Message, "its status cannot be read: ") {
		t.Errorf("%+v", unreadable)
	}
}

func TestConditionStates(t *testing.T) {
	accepted := func(status metav1.ConditionStatus, observed int64) metav1.Condition {
		return metav1.Condition{
			Type: "Accepted", Status: status, ObservedGeneration: observed, Reason: "R",
			Message: "M",
		}
	}
	for name, tc := range map[string]struct {
		conditions []metav1.Condition
		want       string
	}{
		"true":              {[]metav1.Condition{accepted(metav1.ConditionTrue, 5)}, "ready"},
		"true, no number":   {[]metav1.Condition{accepted(metav1.ConditionTrue, 0)}, "ready"},
		"true, of a newer":  {[]metav1.Condition{accepted(metav1.ConditionTrue, 6)}, "ready"},
		"true, of an older": {[]metav1.Condition{accepted(metav1.ConditionTrue, 4)}, staleStatus},
		"false":             {[]metav1.Condition{accepted(metav1.ConditionFalse, 5)}, "Accepted is False: R: M"},
		"unknown":           {[]metav1.Condition{accepted(metav1.ConditionUnknown, 5)}, "Accepted is Unknown: R: M"},
		"not set":           {nil, "its controller has not set condition Accepted yet"},
	} {
		is(t, name, ConditionsState(5, tc.conditions, "Accepted"), tc.want)
	}
	both := []metav1.Condition{
		accepted(metav1.ConditionTrue, 5),
		{Type: "Programmed", Status: metav1.ConditionFalse, Reason: "R"},
	}
	is(t, "the second is false", ConditionsState(5, both, "Accepted", "Programmed"), "Programmed is False: R")
	is(t, "no conditions are asked for", ConditionsState(5, nil), "ready")
}

func TestDeletedObjectsNameTheirFinalizers(t *testing.T) {
	obj := &unstructured.Unstructured{}
	if got := finalizers(obj); got != "" {
		t.Errorf("none: %q", got)
	}
	obj.SetFinalizers([]string{"a/x", "b/y"})
	if got := finalizers(obj); got != ", and waits for its finalizers a/x, b/y" {
		t.Errorf("two: %q", got)
	}
}

// A webhook is waited for with its own Service only.
func TestWebhookOfAnotherService(t *testing.T) {
	set := objects(t, "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: x}\n---\n"+
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: x}\n")
	for _, tc := range []struct {
		namespace, name string
		want            bool
	}{{"x", "a", true}, {"x", "b", false}, {"z", "a", false}, {"x", "c", false}} {
		if got := holdsService(set, tc.namespace, tc.name); got != tc.want {
			t.Errorf("Service %s/%s: %v, want %v", tc.namespace, tc.name, got, tc.want)
		}
	}
	for kind, want := range map[string]bool{
		"ValidatingWebhookConfiguration": true, "MutatingWebhookConfiguration": true,
		"ValidatingAdmissionPolicy": false,
	} {
		obj := objects(t, "apiVersion: admissionregistration.k8s.io/v1\nkind: "+kind+"\nmetadata: {name: v}\n")[0]
		if got := isWebhookConfiguration(obj.GroupVersionKind().GroupKind()); got != want {
			t.Errorf("%s: %v, want %v", kind, got, want)
		}
	}
	other := objects(t, "apiVersion: example.com/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: v}\n")[0]
	if isWebhookConfiguration(other.GroupVersionKind().GroupKind()) {
		t.Error("a kind of another group counts as a webhook configuration")
	}
}

func TestHasReadyPod(t *testing.T) {
	slice := func(name, service string, endpoints ...discoveryv1.Endpoint) client.Object {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Name: name, Namespace: "n",
				Labels: map[string]string{discoveryv1.LabelServiceName: service},
			},
			Endpoints: endpoints,
		}
	}
	endpoint := func(ready *bool, addresses ...string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: addresses, Conditions: discoveryv1.EndpointConditions{Ready: ready}}
	}
	for name, tc := range map[string]struct {
		slices []client.Object
		want   bool
	}{
		"nothing":             {nil, false},
		"ready":               {[]client.Object{slice("x", "s", endpoint(ptr.To(true), "10.0.0.1"))}, true},
		"not set means ready": {[]client.Object{slice("x", "s", endpoint(nil, "10.0.0.1"))}, true},
		"not ready":           {[]client.Object{slice("x", "s", endpoint(ptr.To(false), "10.0.0.1"))}, false},
		"no address":          {[]client.Object{slice("x", "s", endpoint(ptr.To(true)))}, false},
		"of another Service":  {[]client.Object{slice("x", "q", endpoint(ptr.To(true), "10.0.0.1"))}, false},
		"the second of two": {[]client.Object{slice("x", "s", endpoint(ptr.To(false), "10.0.0.1"),
			endpoint(nil, "10.0.0.2"))}, true},
		"in the second of two": {
			[]client.Object{slice("x", "s"), slice("y", "s", endpoint(nil, "10.0.0.2"))},
			true,
		},
		"two, and none is ready": {[]client.Object{
			slice("x", "s"),
			slice("y", "s", endpoint(ptr.To(false), "10.0.0.2")),
		}, false},
		"no addresses, ready unset": {[]client.Object{slice("x", "s", endpoint(nil))}, false},
	} {
		got, err := HasReadyPod(t.Context(), live(t, interceptor.Funcs{}, tc.slices...).api, "n", "s")
		if err != nil || got != tc.want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, tc.want)
		}
	}
}
