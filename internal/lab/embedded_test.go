package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/ui"
)

// The tests on an embedded control plane need Go alone: they build the real API server, istiod and the others once, and
// run them. Each has a control plane of its own, so that they do not disturb each other, nor a lab of the user's.

// bench is a lab on an embedded control plane of the test's own.
type bench struct {
	bed
	t   *testing.T
	env map[string]string
}

// buffer is written by targets while tests read it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b.Reset()
}

// newBench describes a lab, whose pods do not run unless a setting says so; its control plane is removed when the test
// ends.
func newBench(t *testing.T, name string, settings ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	b := &bench{t: t, env: map[string]string{
		"SM_PROVIDER": cluster.ProviderEmbedded, "SM_PACKETS": "off", "SM_CLUSTER": name, "SM_TIMEOUT": "40m",
		"KUBECONFIG": filepath.Join(dir, "kubeconfig"),
	}}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		b.env[key] = value
	}
	b.out, b.talk = &buffer{}, &buffer{}
	b.Env = b.lab().Env
	b.StateDir = filepath.Join(dir, "state")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := b.Delete(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("talk:\n%s\nout:\n%s", b.talk, b.out)
		}
	})
	return b
}

// lab makes what another command would have: the same settings but for those given, and no connection yet.
func (b *bench) lab(settings ...string) bed {
	b.t.Helper()
	env := map[string]string{}
	for key, value := range b.env {
		env[key] = value
	}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		env[key] = value
	}
	if env["SM_PROVIDER"] != cluster.ProviderEmbedded {
		delete(env, "SM_PACKETS") // it is for an embedded lab alone
	}
	loaded, err := session.Load(func(key string) string { return env[key] })
	if err != nil {
		b.t.Fatal(err)
	}
	kind := ui.Plain
	if loaded.Output == string(ui.JSON) {
		kind = ui.JSON
	}
	view := ui.New(kind, b.talk, func(key string) string { return env[key] })
	made, err := session.New(loaded, b.out, view)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.Env != nil {
		made.StateDir = b.StateDir
	}
	return bed{Env: made, out: b.out, talk: b.talk}
}

// provider is the lab's; plane is the same as the control plane that it is.
func (b *bench) provider() cluster.Provider {
	b.t.Helper()
	provider, err := b.FindProvider(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return provider
}

func (b *bench) plane() *embedded.Embedded { return b.provider().(*embedded.Embedded) }

// connect connects to the lab's cluster.
func (b *bench) connect() *apply.Client {
	b.t.Helper()
	config, err := b.provider().RESTConfig(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	client, err := session.Client(config, b.Settings.Cluster)
	if err != nil {
		b.t.Fatal(err)
	}
	return client
}

// do runs a target that must succeed, and gives what it printed on stdout.
func (b *bench) do(name string, target func(context.Context) error) string {
	b.t.Helper()
	b.out.reset()
	start := time.Now()
	if err := target(b.t.Context()); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	b.t.Logf("%s took %s", name, time.Since(start).Round(10*time.Millisecond))
	return b.out.String()
}

// fails runs a target that must fail, and gives its error.
func (b *bench) fails(name string, target func(context.Context) error) error {
	b.t.Helper()
	err := target(b.t.Context())
	if err == nil {
		b.t.Fatalf("%s succeeded", name)
	}
	return err
}

// says wants each of some words in a text.
func says(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s does not say %q:\n%s", what, word, text)
		}
	}
}

// The targets with their defaults.

func (b *bench) apps(ctx context.Context) error     { return b.Apps(ctx, false) }
func (b *bench) waypoint(ctx context.Context) error { return b.Waypoint(ctx, false) }
func (b *bench) fault(ctx context.Context) error    { return b.Fault(ctx, params.DefaultFault(), false) }
func (b *bench) authz(ctx context.Context) error    { return b.Authz(ctx, "", false, false) }
func (b *bench) verify(ctx context.Context) error   { return b.Verify(ctx, "") }

// TestEmbeddedFlow takes a lab from nothing to every lesson and back.
func TestEmbeddedFlow(t *testing.T) {
	b := newBench(t, "flow")
	b.foreseen()
	b.talk.reset()
	b.do("install again", b.Install)
	says(t, "the second install", b.talk.String(), "no changes")
	b.foundByName()
	b.loopbackOnly()
	b.debugClosed()
	b.refused("waypoint without apps", problem.ObjectMissing, b.waypoint)
	b.do("apps", b.apps)
	b.refused("fault without a waypoint", problem.WaypointOff, b.fault)
	b.refused("authz without a waypoint", problem.WaypointOff, b.authz)
	b.do("fault off, though it never was on",
		func(ctx context.Context) error { return b.Fault(ctx, params.DefaultFault(), true) })
	says(t, "verify without lessons", b.do("verify", b.verify), "waypoint-off-gateway",
		"4 of 4 claims proven on configuration")
	b.do("waypoint", b.waypoint)
	b.do("fault", b.fault)
	b.do("authz", b.authz)
	b.golden()
	dir := t.TempDir()
	says(t, "verify", b.do("verify", func(ctx context.Context) error { return b.Verify(ctx, dir) }),
		"fault-appa ", "authz-post-appa ", "waypoint-appb-only ", "13 of 13 claims proven on configuration",
		"only traffic can decide them: 3 (reach-appa, direct-open, unmeshed-open)")
	says(t, "the report", read(t, filepath.Join(dir, "report.json")), "no request was sent")
	says(t, "status", b.do("status", b.Status), "simulated", "process ", "lesson fault",
		"50 % of /headers* delayed by 2s")
	says(t, "proxyConfig", b.do("proxyConfig", func(ctx context.Context) error { return b.ProxyConfig(ctx, "") }),
		"inbound-vip|8000|http|appb", "appb.opssec.in")

	b.readOnly("every plan changes nothing", func(ctx context.Context) error { return b.Plan(ctx, "") })
	says(t, "traffic", b.fails("traffic", func(ctx context.Context) error {
		return Traffic(TrafficOptions{From: "gateway", Path: "/headers", RPS: 2, Count: 1})(ctx, b.Env)
	}).Error(), "in embedded control plane flow they do not")

	// Other parameters than the defaults arrive, too.
	b.do("another fault", func(ctx context.Context) error {
		return b.Fault(ctx, params.Fault{Percent: 1.14, Delay: 300 * time.Millisecond, Path: "/ip", Exact: true}, false)
	})
	b.do("nobody", func(ctx context.Context) error {
		return b.Authz(ctx, "appa,gateway-istio", true, false)
	})
	says(t, "verify", b.do("verify", b.verify), "direct-closed ", "unmeshed-closed ", "authz-taken-out-appa ",
		"claims proven on configuration")
	b.sabotaged()

	b.refused("waypoint off under authz -strict", problem.LessonNeeded,
		func(ctx context.Context) error { return b.Waypoint(ctx, true) })
	b.refused("apps off under all of them", problem.LessonNeeded,
		func(ctx context.Context) error { return b.Apps(ctx, true) })
	for _, off := range []struct {
		name   string
		target func(context.Context) error
	}{
		{"authz off", func(ctx context.Context) error { return b.Authz(ctx, "", false, true) }},
		{"fault off", func(ctx context.Context) error { return b.Fault(ctx, params.DefaultFault(), true) }},
		{"verify", b.verify},
		{"waypoint off", func(ctx context.Context) error { return b.Waypoint(ctx, true) }},
		{"verify", b.verify},
		{"waypoint off again", func(ctx context.Context) error { return b.Waypoint(ctx, true) }},
		{"apps off", func(ctx context.Context) error { return b.Apps(ctx, true) }},
	} {
		b.talk.reset()
		b.do(off.name, off.target)
		says(t, off.name, b.talk.String(), "next: mage sm:")
	}
}

// foundByName wants the lab found with nothing set but its name, on a machine without Docker, and no other lab.
func (b *bench) foundByName() {
	b.t.Helper()
	withoutDocker(b.t)
	for name, words := range map[string][]string{
		"flow":  {"embedded flow", "istiod-process", "lesson apps"},
		"other": nil,
	} {
		unset := b.lab("SM_PROVIDER=", "SM_CLUSTER="+name)
		b.out.reset()
		b.talk.reset()
		err := unset.Status(b.t.Context())
		if words == nil {
			refused(b.t, "status of a lab that does not exist", err, problem.DockerNotRunning)
			continue
		}
		if err != nil {
			b.t.Error(err)
		}
		says(b.t, "status", b.out.String(), words...)
		says(b.t, "what status says", b.talk.String(), "lab flow: embedded control plane flow", "next: mage sm:apps")
	}
}

// foreseen holds the plan that is made before there is anything against what the install then really creates.
func (b *bench) foreseen() {
	b.t.Helper()
	planner := b.lab()
	plan := b.do("plan", func(ctx context.Context) error { return planner.Plan(ctx, "install") })
	says(b.t, "a plan before there is anything", plan, "+ embedded cluster flow",
		"there is no cluster yet whose API server could check these objects", "> process istiod")
	if strings.Contains(plan, "cannot be looked at") || strings.Contains(plan, "comes after") {
		b.t.Errorf("a plan without a cluster leaves steps out:\n%s", plan)
	}
	b.do("every plan", func(ctx context.Context) error { return planner.Plan(ctx, "") })
	b.talk.reset()
	b.do("install", b.lab("SM_OUTPUT=json").Install)
	planned := planned(plan)
	planned = slices.DeleteFunc(planned, func(object string) bool { return object == "embedded cluster flow" })
	if made := b.created(); !slices.Equal(planned, made) || len(made) == 0 {
		b.t.Errorf("planned to create:\n%s\ncreated:\n%s", strings.Join(planned, "\n"), strings.Join(made, "\n"))
	}
}

// planned lists the objects that a plan would create, in order.
func planned(plan string) []string {
	var objects []string
	for line := range strings.Lines(plan) {
		if _, object, found := strings.Cut(line, "  + "); found {
			objects = append(objects, strings.TrimSpace(object))
		}
	}
	slices.Sort(objects)
	return objects
}

// created lists the objects that the events of a run say were created, in order.
func (b *bench) created() []string {
	b.t.Helper()
	var objects []string
	for line := range strings.Lines(b.talk.String()) {
		var event struct{ Change engine.Change }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			b.t.Fatalf("an event is no JSON: %v: %s", err, line)
		}
		if event.Change.Action == engine.Create {
			objects = append(objects, event.Change.Object)
		}
	}
	slices.Sort(objects)
	return objects
}

// refused wants a target refused, at once and with nothing written.
func (b *bench) refused(name string, kind problem.Kind, target func(context.Context) error) {
	b.t.Helper()
	b.talk.reset()
	start := time.Now()
	err := b.fails(name, target)
	if !problem.Is(err, kind) {
		b.t.Errorf("%s gives %v, want %s", name, err, kind.ID)
	}
	if took := time.Since(start); took > 30*time.Second {
		b.t.Errorf("%s was refused after %s", name, took)
	}
	if text := b.talk.String(); text != "" {
		b.t.Errorf("%s began something before it was refused:\n%s", name, text)
	}
}
