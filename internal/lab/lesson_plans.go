package lab

import (
	"context"
	"fmt"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/specs"
)

// appsPlan is sm:apps: the two applications side by side, and the way in.
func (l *Lab) appsPlan() engine.Plan {
	return engine.Plan{Name: "apps", Title: "appa, appb and the gateway", Steps: []engine.Step{
		l.specStep("appa", "appa, the caller", nil, "lessons/apps/appa.yaml", l.images()),
		l.specStep("appb", "appb, the callee", nil, "lessons/apps/appb.yaml", l.images()),
		l.lessonStepOf("apps", "Gateway and HTTPRoute for "+names.Host, nil, "lessons/apps/gateway.yaml", l.gatewayData, struct{}{}),
	}}
}

// waypointPlan is sm:waypoint. Until the proxies hold it, traffic goes around the waypoint in silence: it fails open.
func (l *Lab) waypointPlan() engine.Plan {
	return engine.Plan{Name: "waypoint", Title: "A waypoint for appb alone", Steps: []engine.Step{
		l.upstreamEnvoyStep("upstream-envoy"),
		l.lessonStep("waypoint", "Gateway "+names.Waypoint, needs("upstream-envoy"), "lessons/waypoint/gateway.yaml", nil, struct{}{}),
		l.enrolStep("enrol", "waypoint"),
	}}
}

// faultPlan is sm:fault.
func (l *Lab) faultPlan(fault params.Fault) engine.Plan {
	data := map[string]any{"Namespace": l.Settings.Namespace, "Percent": fault.Percent, "Delay": fault.Delay.String(), "Path": fault.Path, "Exact": fault.Exact}
	title := fmt.Sprintf("%v %% of %s delayed by %s", fault.Percent, fault.Paths(), fault.Delay)
	return engine.Plan{Name: "fault", Title: title, Steps: []engine.Step{
		l.lessonStep("fault", "VirtualService appb-delay", nil, "lessons/fault/delay.yaml", data, fault),
	}}
}

// authzPlan is sm:authz: exactly what the flags say. Without -strict the strict policies of an earlier run are gone.
func (l *Lab) authzPlan(authz params.Authz) engine.Plan {
	data := map[string]any{"Namespace": l.Settings.Namespace, "Principals": authz.Principals(l.Settings.Namespace)}
	return engine.Plan{Name: "authz", Title: fmt.Sprintf("Only %v may GET from appb", authz.Allowed), Steps: []engine.Step{
		l.lessonStep("authz", "AuthorizationPolicy "+names.GetOnly, nil, "lessons/authz/get-only.yaml", data, authz),
		l.strictStep("strict", authz.Strict, data),
	}}
}

// specStep is a step that applies one of the lab's own specs in the applications' namespace.
func (l *Lab) specStep(id, title string, needs []string, file string, data any) engine.Step {
	return l.setStep(id, title, needs, func(context.Context) (objects, error) { return specs.Objects(file, data) })
}

// lessonStep is a specStep that also records what was asked for.
func (l *Lab) lessonStep(lesson, title string, needs []string, file string, data, parameters any) engine.Step {
	return l.lessonStepOf(lesson, title, needs, file, func(context.Context) (any, error) { return data, nil }, parameters)
}

// lessonStepOf is a lessonStep whose data depend on the cluster.
func (l *Lab) lessonStepOf(lesson, title string, needs []string, file string, data func(context.Context) (any, error), parameters any) engine.Step {
	return l.setStep(lesson, title, needs, func(ctx context.Context) (objects, error) {
		values, err := data(ctx)
		if err != nil {
			return nil, err
		}
		list, err := specs.Objects(file, values)
		if err != nil {
			return nil, err
		}
		record, err := asked(lesson, parameters)
		if err != nil {
			return nil, err
		}
		return append(list, record), nil
	})
}

func (l *Lab) images() map[string]any {
	return map[string]any{"Httpbin": names.HttpbinImage, "Fortio": names.FortioImage}
}

// gatewayData makes the Gateway's Service one without an address of its own where nothing would give it one.
func (l *Lab) gatewayData(ctx context.Context) (any, error) {
	serviceType := ""
	if !l.Settings.UseMetalLB() {
		serviceType = "ClusterIP"
		if balanced, ok := l.provider.(cluster.Balanced); ok {
			name, err := balanced.LoadBalancer(ctx)
			if err != nil {
				return nil, err
			}
			if name != "" {
				serviceType = ""
			}
		}
	}
	return map[string]any{"ServiceType": serviceType}, nil
}

// enrolStep labels Service appb, which belongs to sm:apps: only the two labels are this lesson's.
func (l *Lab) enrolStep(id string, needs ...string) engine.Step {
	step := engine.Step{ID: id, Title: "Service appb and its ingress traffic through the waypoint", Needs: needs}
	list, err := specs.Objects("lessons/waypoint/service.yaml", nil)
	if err != nil {
		step.Check = func(context.Context) (engine.Status, error) { return engine.Status{}, err }
		return step
	}
	service := list[0]
	service.SetNamespace(l.Settings.Namespace)
	step = apply.Step(l.connect, id, step.Title, needs, apply.Overlay{Name: id, Object: service})
	step.Timeout = patient
	return step
}

// upstreamEnvoyStep applies the EnvoyFilter that upstream Envoy needs in Istio's place. With Istio's own proxy its set
// is empty, and takes away what an installation with a substitute left.
func (l *Lab) upstreamEnvoyStep(id string) engine.Step {
	return l.setStep(id, "Waypoint configuration for the proxy in use", nil, func(ctx context.Context) (objects, error) {
		subs, err := l.substitutes(ctx)
		if err != nil || subs.proxy() == "" {
			return nil, err
		}
		return specs.Objects("lessons/waypoint/upstream-envoy.yaml", nil)
	})
}

// strictStep applies or, as a set that is empty, prunes the policies that close the ways around the waypoint.
func (l *Lab) strictStep(id string, strict bool, data any) engine.Step {
	title := "Ways around the waypoint: open"
	if strict {
		title = "Ways around the waypoint: closed"
	}
	return l.setStep(id, title, nil, func(context.Context) (objects, error) {
		if !strict {
			return nil, nil
		}
		return specs.Objects("lessons/authz/strict.yaml", data)
	})
}
