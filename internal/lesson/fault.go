package lesson

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/session"
)

// Fault is sm:fault: the waypoint delays a share of the requests.
func Fault(fault params.Fault) Lesson {
	detail := fmt.Sprintf("%v %% of %s delayed by %s", fault.Percent, fault.Paths(), fault.Delay)
	return Lesson{
		Name: "fault", Needs: []string{"apps", "waypoint"}, Parameters: fault, Invalid: fault.Validate(),
		Recorded: func(raw json.RawMessage) (Lesson, error) {
			var recorded params.Fault
			err := json.Unmarshal(raw, &recorded)
			return Fault(recorded), err
		},
		On: detail, Off: "no delay", Claims: faultClaims(),
		Data: func(config session.Config) map[string]any {
			return map[string]any{
				"Namespace": config.Namespace, "Percent": fault.Percent, "Delay": fault.Delay.String(),
				"Path": fault.Path, "Exact": fault.Exact,
			}
		},
		Plan: func(l Lesson, s *session.Session) engine.Plan {
			return engine.Plan{
				Name: l.Name, Title: detail,
				Steps: []engine.Step{l.recordedStep(s, "VirtualService "+names.Delay, "delay.yaml")},
			}
		},
		InForce: func(s *session.Session) Wait {
			return Wait{"The waypoint runs the delay", mesh.FaultOn(Target(s), names.Delay, fault)}
		},
		Gone: func(s *session.Session) Wait {
			return Wait{"The waypoint delays nothing", mesh.FaultOff(Target(s), fault)}
		},
		Effect: func(ctx context.Context, s *session.Session, env probe.Env, began time.Time, off bool) {
			tellFirstEffect(ctx, s, env, began, fault, off)
		},
		Next: func(s *session.Session) string {
			if !s.Info.Packets {
				return "mage sm:proxyConfig -of=waypoint to see it, then mage sm:authz"
			}
			return "mage sm:traffic to see it, then mage sm:authz"
		},
		NextOff: offHint("fault"),
	}
}

// effectPatience is how long tellFirstEffect sends requests, besides one delay.
const effectPatience = 45 * time.Second

// tellFirstEffect says when a caller first noticed that the delay is on, or gone. It does not fail the target: where
// the effect was not seen, it says so.
func tellFirstEffect(
	ctx context.Context, s *session.Session, env probe.Env, began time.Time, fault params.Fault, off bool,
) {
	if !env.Lessons.Waypoint {
		return
	}
	who := probe.Appa
	if !probe.Admitted(who)(env.Lessons) {
		who = probe.Gateway
	}
	ctx, cancel := context.WithTimeout(ctx, effectPatience+fault.Delay)
	defer cancel()
	look, what := probe.FirstDelayed, "the first delayed response"
	if off {
		look, what = probe.NoneDelayed, "only undelayed responses"
	}
	seen, err := look(ctx, env, who, fault)
	if err != nil {
		s.Tell("%s from %s: not seen (%v)", what, who, err)
		return
	}
	s.Tell("%s from %s: %s after the target began, %d requests later", what, who,
		time.Since(began).Round(10*time.Millisecond), seen.Requests)
}
