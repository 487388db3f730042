package lesson

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/session"
	"ambientlab/specs"
)

// Authz is sm:authz: only appa and the gateway may GET from appb. without lists those of them that may not; strict also
// closes the ways around the waypoint.
func Authz(without string, strict bool) Lesson {
	authz, err := params.NewAuthz(without, strict)
	lesson := authzOf(authz)
	lesson.Invalid = err
	return lesson
}

func authzOf(authz params.Authz) Lesson {
	return Lesson{
		Name: "authz", Needs: []string{"apps", "waypoint"}, Parameters: authz,
		Recorded: func(raw json.RawMessage) (Lesson, error) {
			var recorded params.Authz
			err := json.Unmarshal(raw, &recorded)
			return authzOf(recorded), err
		},
		On: describeAuthz(authz), Off: "every caller may ask appb", Claims: authzClaims(),
		Data: func(config session.Config) map[string]any {
			return map[string]any{
				"Principals": authz.Principals(config.TrustDomain, config.Namespace),
				"Waypoint":   names.Principal(config.TrustDomain, config.Namespace, names.Waypoint),
			}
		},
		Plan: func(l Lesson, s *session.Session) engine.Plan { return authzPlan(l, s, authz) },
		InForce: func(s *session.Session) Wait {
			namespace := s.Config.Namespace
			want := mesh.Policy{
				Namespace: namespace, Name: names.GetOnly,
				Principals: authz.Principals(s.Config.TrustDomain, namespace), Methods: []string{"GET"},
			}
			around := mesh.StrictOff(Target(s), namespace, names.OnlyViaWaypoint) // also that of an earlier -strict
			if authz.Strict {
				around = mesh.StrictOn(namespace, names.OnlyViaWaypoint)
			}
			return Wait{"The waypoint enforces the policy", mesh.All(mesh.AuthzOn(Target(s), want), around)}
		},
		Gone: func(s *session.Session) Wait {
			namespace := s.Config.Namespace
			return Wait{"The waypoint enforces no policy, nor does ztunnel", mesh.All(
				mesh.AuthzOff(Target(s), namespace, names.GetOnly),
				mesh.StrictOff(Target(s), namespace, names.OnlyViaWaypoint),
			)}
		},
		Next: typed("mage sm:verify"), NextOff: offHint("authz"),
	}
}

func describeAuthz(authz params.Authz) string {
	text := "GET by " + strings.Join(authz.Allowed, " and ")
	if len(authz.Allowed) == 0 {
		text = "no caller may ask appb"
	}
	if authz.Strict {
		return text + "; only the waypoint reaches the pod"
	}
	return text + "; the pod can be reached around the waypoint"
}

// authzPlan makes the policies exactly what the flags say: without -strict, the policies of an earlier -strict are
// removed.
func authzPlan(l Lesson, s *session.Session, authz params.Authz) engine.Plan {
	title := "Ways around the waypoint: open"
	if authz.Strict {
		title = "Ways around the waypoint: closed"
	}
	return engine.Plan{
		Name: l.Name, Title: fmt.Sprintf("Only %v may GET from appb", authz.Allowed),
		Steps: []engine.Step{
			l.recordedStep(s, "AuthorizationPolicy "+names.GetOnly, "get-only.yaml"),
			s.SetStep("strict", title, nil, func(context.Context) ([]*unstructured.Unstructured, error) {
				if !authz.Strict {
					return nil, nil
				}
				return specs.Objects("lessons/authz/strict.yaml", l.Data(s.Config))
			}),
		},
	}
}
