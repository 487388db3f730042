package lab

import (
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// What is installed and no longer asked for stays in the plan, so that its empty set prunes it; to be taken back, a
// plan holds what is installed, whatever the settings say.
func TestDeselectedParts(t *testing.T) {
	for name, tc := range map[string]struct {
		found    session.Found
		removing bool
		want     string // the optional steps, with a minus those that go
	}{
		"nothing there": {want: "kiali"},
		"all there": {
			found: session.Found{
				Parts: map[string]bool{
					"metallb": true, "address-pool": true, "grafana": true, "kiali": true,
					"tracing": true, "manifests-first": true, "manifests": true,
				},
			},
			want: "-metallb -address-pool -manifests-first -grafana kiali -tracing -manifests",
		},
		"it cannot be told": {
			found: session.Found{Unknown: true},
			want:  "-metallb -address-pool -manifests-first -prometheus -grafana -jaeger kiali -tracing -manifests",
		},
		"to be taken back": {
			found:    session.Found{Parts: map[string]bool{"metallb": true, "address-pool": true, "manifests": true}},
			removing: true, want: "metallb address-pool manifests",
		},
		"nothing to take back": {removing: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, "SM_ADDONS=kiali", "SM_METALLB=off")
			b.UseProvider(absent{})
			s := b.open(t)
			s.Found = tc.found
			if tc.removing {
				s = s.With(session.AsRecorded)
			}
			plan := installPlan(s, newCharts(b.Env, s.Provider()))
			if err := plan.Validate(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, step := range plan.Steps {
				if !slices.Contains(
					[]string{
						"metallb", "address-pool", "prometheus", "grafana", "jaeger", "kiali", "tracing",
						"manifests-first", "manifests",
					}, step.ID) {
					continue
				}
				suffix := removed
				if tc.found.Unknown {
					suffix = notRequested
				}
				if strings.HasSuffix(step.Title, suffix) {
					step.ID = "-" + step.ID
				}
				got = append(got, step.ID)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v", got)
			}
			// MetalLB's own objects go while its controller is still there, and come after it.
			first, then := "metallb", "address-pool"
			if strings.HasPrefix(tc.want, "-") {
				first, then = then, first
			}
			for _, step := range plan.Steps {
				if step.ID == then && !slices.Contains(step.Needs, first) {
					t.Errorf("%s does not wait for %s: %v", then, first, step.Needs)
				}
			}
		})
	}
}

// The record is kept until the plans were undone: a deletion that was interrupted reads it again.
func TestRecordIsDeletedLast(t *testing.T) {
	b := newBed(t)
	b.UseProvider(absent{})
	s := b.open(t).With(session.AsRecorded)
	for _, step := range installPlan(s, newCharts(b.Env, s.Provider())).Steps {
		if step.ID == session.RecordPart && step.Undo != nil {
			t.Error("the record is removed with the installation")
		}
	}
	rest := remainderPlan(s).Steps
	if last := rest[len(rest)-1]; last.ID != session.RecordPart || !slices.Equal(last.Needs, []string{"by-products"}) {
		t.Errorf("the last step is %s, after %v", last.ID, last.Needs)
	}
}

func TestGatewayAPITooOld(t *testing.T) {
	crd := func(name, bundle string, served ...string) apiextensionsv1.CustomResourceDefinition {
		crd := apiextensionsv1.CustomResourceDefinition{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{bundleVersion: bundle}},
		}
		for _, version := range []string{"v1alpha2", "v1beta1", "v1"} {
			crd.Spec.Versions = append(crd.Spec.Versions,
				apiextensionsv1.CustomResourceDefinitionVersion{
					Name:   version,
					Served: slices.Contains(served, version),
				})
		}
		return crd
	}
	for name, tc := range map[string]struct {
		crds []apiextensionsv1.CustomResourceDefinition
		want string
	}{
		"none": {nil, ""},
		"new enough": {
			[]apiextensionsv1.CustomResourceDefinition{crd("gateways."+gatewayAPIGroup, "v1.0.0", "v1beta1", "v1")},
			"",
		},
		"of no importance": {
			[]apiextensionsv1.CustomResourceDefinition{crd("udproutes."+gatewayAPIGroup, "v0.6.2", "v1alpha2")}, "",
		},
		"too old": {
			[]apiextensionsv1.CustomResourceDefinition{crd("httproutes."+gatewayAPIGroup, "v0.6.2", "v1beta1")},
			"httproutes.gateway.networking.k8s.io (Gateway API v0.6.2) serves v1beta1; the lab needs v1",
		},
	} {
		err := tooOld(tc.crds)
		if (err != nil) != (tc.want != "") || err != nil &&
			(!problem.Is(err, problem.GatewayAPIVersion) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestLeftIsTold(t *testing.T) {
	b := newBed(t)
	b.UseProvider(absent{})
	tellLeft(b.open(t), engine.Result{Steps: []engine.StepResult{{Changes: []engine.Change{
		{Object: "Deployment a", Action: engine.Delete},
		{
			Object: "Namespace istio-system", Action: engine.Update,
			Detail: "left in place: Secret istio-system/password is not the lab's and needs it",
		},
	}}}})
	want := "Namespace istio-system stays: Secret istio-system/password is not the lab's and needs it\n"
	if got := b.talk.String(); !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("told %q", got)
	}
}

// A part of the installation and a lesson do not share a name: each would delete the objects of the other, which are
// not in its own set.
func TestEveryPartIsOfOnePlan(t *testing.T) {
	b := newBed(t, "SM_ADDONS=prometheus,grafana,jaeger,kiali", "SM_METALLB=on")
	b.UseProvider(absent{})
	s := b.open(t)
	plans := []engine.Plan{installPlan(s, newCharts(b.Env, s.Provider()))}
	for _, l := range lesson.All() {
		plans = append(plans, l.Plan(l, s))
	}
	owner := map[string]string{}
	for _, plan := range plans {
		for _, step := range plan.Steps {
			if other, taken := owner[step.ID]; taken {
				t.Errorf("%s and %s have a part %s each", other, plan.Name, step.ID)
			}
			owner[step.ID] = plan.Name
		}
	}
	if len(owner) < 20 {
		t.Errorf("only %d parts were compared", len(owner))
	}
}
