package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pmezard/go-difflib/difflib"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/cluster"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/command"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/manifest"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/problem"
	"ambientlab/internal/sabotage"
	"ambientlab/internal/session"
	"ambientlab/internal/workshop"
	"ambientlab/specs"
)

// workshopLab is a lab as the workshop needs it. It implements workshop.Lab.
type workshopLab struct {
	env *session.Env
	// program is this one, with which a command of a station is run, and settings are variables for it.
	program  string
	settings []string
	feed     *workshop.Feed

	mu sync.Mutex
	// s is the session on the lab once it is installed; world sends the requests that are shown.
	s     *session.Session
	world probe.World
}

func newWorkshopLab(env *session.Env, program string) *workshopLab {
	w := &workshopLab{env: env.Quiet(io.Discard), program: program}
	w.feed = workshop.NewFeed(w.source)
	return w
}

// open gives a session with the record and the lessons that the cluster has now; nil and a reason where the lab is not
// installed.
func (w *workshopLab) open(ctx context.Context) (s *session.Session, why string, err error) {
	w.mu.Lock()
	known := w.s
	w.mu.Unlock()
	if known != nil {
		if s, err = known.Reread(ctx); err == nil && s.Found.Record != nil {
			return s.With(session.AsInstalled), "", nil
		}
		w.forget()
	}
	s, err = session.Open(ctx, w.env, session.MustBeInstalled)
	switch {
	case problem.Is(err, problem.ClusterNone), problem.Is(err, problem.ClusterStopped):
		return nil, err.Error(), nil
	case err != nil:
		return nil, "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.s = s
	return s, "", nil
}

// installed is open for what needs an installed lab.
func (w *workshopLab) installed(ctx context.Context) (*session.Session, error) {
	s, why, err := w.open(ctx)
	if err == nil && s == nil {
		err = fmt.Errorf("the lab is not installed: %s", why)
	}
	return s, err
}

// forget drops the session on a lab that does not answer any more.
func (w *workshopLab) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.s, w.world = nil, nil
}

// Look implements workshop.Lab.
func (w *workshopLab) Look(ctx context.Context) (workshop.Look, error) {
	look := workshop.Look{Lab: w.env.Settings.Cluster, Namespace: w.env.Settings.Namespace}
	s, why, err := w.open(ctx)
	if err != nil || s == nil {
		look.Why = why
		return look, err
	}
	look.Installed, look.Created, look.Addons = true, s.Found.Record.Created, s.Config.Addons
	look.Namespace = s.Config.Namespace
	if !s.Info.Packets {
		look.NoPackets = "the pods of this lab exchange no packets, so no request is shown and claims are judged on " +
			"the configuration that istiod sends"
	}
	if len(s.Found.Lessons) == 0 {
		missing, err := unfinished(ctx, s)
		if err != nil || missing != "" {
			look.Installed, look.Why = false, missing
			return look, err
		}
	}
	m, err := s.Mesh(ctx)
	if err != nil {
		return look, err
	}
	objects, err := m.Objects(ctx, lesson.Target(s))
	if err != nil {
		return look, err
	}
	if look.Lessons, err = lessonsOn(s.Found, objects); err != nil {
		return look, err
	}
	for _, l := range look.Lessons {
		if _, recorded := s.Found.Lessons[l.Name]; l.On && !recorded {
			look.ByHand = append(look.ByHand, l.Name)
		}
	}
	return look, nil
}

// unfinished says what a lab still lacks that sm:install has recorded but not finished; "" where it is ready for the
// first lesson.
func unfinished(ctx context.Context, s *session.Session) (string, error) {
	api, err := s.Connect(ctx)
	if err != nil {
		return "", err
	}
	apps := api.Kube().AppsV1()
	ready, err := istiodReady(ctx, s, apps)
	if err != nil || !ready {
		return "istiod is not ready", err
	}
	ztunnel, err := apps.DaemonSets(names.Istio).Get(ctx, "ztunnel", metav1.GetOptions{})
	if client.IgnoreNotFound(err) != nil {
		return "", fmt.Errorf("looking at ztunnel: %w", err)
	}
	if status := ztunnel.Status; err != nil || status.NumberReady == 0 ||
		status.NumberReady < status.DesiredNumberScheduled {
		return "not every node has a ready ztunnel", nil
	}
	return "", nil
}

// istiodReady tells whether istiod is available, or, where it is a process on this machine, started.
func istiodReady(ctx context.Context, s *session.Session, apps appsclient.AppsV1Interface) (bool, error) {
	if process := s.ProcessStep("istiod", "istiod", cluster.ProcessIstiod); process.Check != nil {
		status, err := process.Check(ctx)
		return status.Done, err
	}
	istiod, err := apps.Deployments(names.Istio).Get(ctx, "istiod", metav1.GetOptions{})
	if client.IgnoreNotFound(err) != nil {
		return false, fmt.Errorf("looking at istiod: %w", err)
	}
	return err == nil && istiod.Status.AvailableReplicas > 0, nil
}

// lessonsOn lists the lessons that are on as their targets recorded them, and those whose objects a learner made
// without a target, or changed.
func lessonsOn(found session.Found, objects *mesh.Objects) (probe.Lessons, error) {
	on, err := lesson.Found(found)
	if err != nil {
		return nil, err
	}
	if objects.Service != nil {
		on = lesson.With(on, lesson.Apps())
	}
	if objects.Waypoint != nil && objects.Service != nil &&
		objects.Service.Labels["istio.io/use-waypoint"] == names.Waypoint {
		on = lesson.With(on, lesson.Waypoint())
	}
	if !on.On("fault") && objects.VirtualService(names.Delay) != nil {
		on = lesson.With(on, lesson.Fault(params.DefaultFault()))
	}
	if !on.On("split") && objects.Route(lesson.SplitRoute) != nil {
		on = lesson.With(on, lesson.Split(lesson.DefaultWeight))
	}
	if !on.On("l4") && objects.Policy(lesson.L4Policy) != nil {
		on = lesson.With(on, lesson.L4(false))
	}
	if policy := objects.Policy(names.GetOnly); policy != nil {
		on = lesson.With(on, liveAuthz(policy, objects.Policy(names.OnlyViaWaypoint) != nil))
	}
	return on, nil
}

// liveAuthz is lesson authz as the policy in the cluster has it.
func liveAuthz(policy *securityv1.AuthorizationPolicy, strict bool) lesson.Lesson {
	var principals, without []string
	for _, rule := range policy.Spec.GetRules() {
		for _, from := range rule.GetFrom() {
			principals = append(principals, from.GetSource().GetPrincipals()...)
		}
	}
	for _, account := range params.Callers() {
		if !slices.ContainsFunc(principals, func(p string) bool { return strings.HasSuffix(p, "/sa/"+account) }) {
			without = append(without, account)
		}
	}
	return lesson.Authz(strings.Join(without, ","), strict)
}

// Watch implements workshop.Lab.
func (w *workshopLab) Watch(ctx context.Context, changed func(string)) error {
	s, _, err := w.open(ctx)
	if err != nil || s == nil {
		return err
	}
	client, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	return workshop.Watch(ctx, client.Config(), s.Config.Namespace, changed)
}

// proofs is what the proofs need, also if the applications were created without the lab.
func (w *workshopLab) proofs(ctx context.Context) (probe.Env, error) {
	s, err := w.installed(ctx)
	if err != nil {
		return probe.Env{}, err
	}
	byHand := *s
	byHand.Found.Lessons = maps.Clone(s.Found.Lessons)
	if byHand.Found.Lessons == nil {
		byHand.Found.Lessons = map[string]json.RawMessage{}
	}
	if _, on := byHand.Found.Lessons["apps"]; !on {
		byHand.Found.Lessons["apps"] = json.RawMessage("{}")
	}
	return proofs(ctx, &byHand)
}

// Judge implements workshop.Lab.
func (w *workshopLab) Judge(
	ctx context.Context, lessons probe.Lessons, claims []string, progress func(string),
) (probe.Report, error) {
	env, err := w.proofs(ctx)
	if err != nil {
		return probe.Report{}, err
	}
	env.Lessons, env.Only = lessons, claims
	env.Progress = func(format string, args ...any) { progress(fmt.Sprintf(format, args...)) }
	if env.World != nil {
		env.World = w.feed.Tap(env.World)
	}
	return probe.Run(ctx, env)
}

// source gives what the feed sends through. One is enough for all its requests.
func (w *workshopLab) source(ctx context.Context) (workshop.Source, error) {
	w.mu.Lock()
	known := w.world
	w.mu.Unlock()
	if known != nil {
		return known, nil
	}
	env, err := w.proofs(ctx)
	if err != nil {
		return nil, err
	}
	if env.World == nil {
		return nil, fmt.Errorf("no packets flow")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.world = env.World
	return w.world, nil
}

// Type implements workshop.Lab: it runs this program again with the target that the command names.
func (w *workshopLab) Type(ctx context.Context, typed string, line func(string)) error {
	_, target, isTarget := strings.Cut(typed, " sm:")
	if !isTarget {
		return fmt.Errorf("%q is not a target", typed)
	}
	var printed []string
	lines := &lineWriter{line: func(text string) {
		text = strings.ReplaceAll(text, w.program+" sm:", cmp.Or(w.env.Command, "mage")+" sm:")
		printed = append(printed, text)
		line(text)
	}}
	_, err := command.Run(ctx, command.Command{
		Name: w.program, Args: strings.Fields("sm:" + target),
		Env: append([]string{"SM_OUTPUT=plain"}, w.settings...), Stdout: lines, Stderr: lines,
	})
	lines.flush()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%s failed: %s", typed, reason(printed))
	}
	return err
}

// reason gives what a target that failed printed as its error and as what to do.
func reason(printed []string) string {
	at := len(printed)
	for i, line := range printed {
		if strings.HasPrefix(line, "Error  ") {
			at = i
		}
	}
	var words []string
	for _, line := range printed[at:] {
		if strings.HasPrefix(line, "Problem  ") {
			break
		}
		words = append(words, strings.Fields(strings.TrimPrefix(line, "Error  "))...)
	}
	if len(words) == 0 {
		return "its output says why"
	}
	return strings.Replace(strings.Join(words, " "), " What to do - ", ". What to do: ", 1)
}

// lineWriter passes on whole lines, without the time stamp of plain output. It may be written to from several
// goroutines.
type lineWriter struct {
	mu   sync.Mutex
	rest []byte
	line func(string)
}

func (l *lineWriter) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, text...)
	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(text), nil
		}
		l.rest = rest
		l.line(withoutTime(string(line)))
	}
}

func (l *lineWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.line(withoutTime(string(l.rest)))
		l.rest = nil
	}
}

// withoutTime cuts the time stamp off a line of plain output.
func withoutTime(line string) string {
	stamp, rest, found := strings.Cut(line, " ")
	if found && len(stamp) == len("2006-01-02T15:04:05Z") && strings.HasSuffix(stamp, "Z") {
		return rest
	}
	return line
}

// Manual implements workshop.Lab.
func (w *workshopLab) Manual(ctx context.Context, name string, on probe.Lessons) (workshop.Manual, error) {
	var manual workshop.Manual
	s, err := w.installed(ctx)
	if err != nil {
		return manual, err
	}
	l, known := lesson.Named(name)
	switch {
	case !known:
		return manual, fmt.Errorf("there is no lesson %s", name)
	case name == "fault" && on.Fault() != nil:
		l = lesson.Fault(*on.Fault())
	case name == "authz" && on.Authz() != nil:
		l = lesson.Authz(strings.Join(on.Authz().Without(), ","), on.Authz().Strict)
	}
	substitutes, err := s.Substitutes(ctx)
	if err != nil {
		return manual, err
	}
	specFiles, err := specs.OfLesson(name)
	if err != nil {
		return manual, err
	}
	for _, spec := range specFiles {
		file := path.Base(spec)
		if file == "upstream-envoy.yaml" && substitutes.Proxy() == "" ||
			file == "strict.yaml" && !probe.Strict(on) {
			continue
		}
		text, err := specs.Render(spec, l.Data(s.Config))
		if err != nil {
			return manual, err
		}
		manual.Files = append(manual.Files, workshop.File{Name: file, Text: string(text)})
	}
	if manual.Commands, err = commandsOf(ctx, l.PlanToApply(s)); err != nil {
		return manual, err
	}
	if manual.Diffs, err = diffs(ctx, s, manual.Files); err != nil {
		return manual, err
	}
	previews, err := s.Preview(ctx, l.PlanToUndo(s))
	if err != nil {
		return manual, err
	}
	for _, preview := range previews {
		for _, change := range preview.Changes {
			manual.Differences = append(manual.Differences, change.String())
		}
	}
	return manual, nil
}

// differ is the field manager of the dry runs that diffs asks for. Fields that another manager owns stay as they are.
const differ = "ambientlab-diff"

// diffs compares the objects of files with those in the cluster, as `kubectl diff --server-side` does: the API server
// computes in a dry run what each would be. Objects that do not exist, or do not differ, are left out.
func diffs(ctx context.Context, s *session.Session, files []workshop.File) ([]workshop.File, error) {
	connection, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	var all []workshop.File
	for _, file := range files {
		list, err := manifest.Decode([]byte(file.Text))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", file.Name, err)
		}
		for _, wanted := range s.Adapt(list) {
			wanted.SetNamespace(s.Config.Namespace)
			what := wanted.GetKind() + " " + wanted.GetName()
			text, err := diff(ctx, connection.Client(), wanted)
			if err != nil {
				return nil, fmt.Errorf("comparing %s: %w", what, err)
			}
			if text != "" {
				all = append(all, workshop.File{Name: what, Text: text})
			}
		}
	}
	return all, nil
}

func diff(ctx context.Context, api client.Client, wanted *unstructured.Unstructured) (string, error) {
	live, after := wanted.DeepCopy(), wanted.DeepCopy()
	if err := api.Get(ctx, client.ObjectKeyFromObject(wanted), live); err != nil {
		return "", client.IgnoreNotFound(err)
	}
	err := api.Apply(ctx, client.ApplyConfigurationFromUnstructured(after), client.FieldOwner(differ),
		client.ForceOwnership, client.DryRunAll)
	if apierrors.IsInvalid(err) { // what is live and what is wanted exclude each other
		return "The API server refuses to apply the file to what is live: " + err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	var texts []string
	for _, object := range []*unstructured.Unstructured{live, after} {
		unstructured.RemoveNestedField(object.Object, "status")
		for _, field := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"} {
			unstructured.RemoveNestedField(object.Object, "metadata", field)
		}
		text, err := yaml.Marshal(object.Object)
		if err != nil {
			return "", err
		}
		texts = append(texts, string(text))
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: difflib.SplitLines(texts[0]), B: difflib.SplitLines(texts[1]), FromFile: "live", ToFile: "applied",
		Context: 3,
	})
}

// commandsOf lists a plan's commands, each with the file that it applies. They are those of sm:plan -out, with the
// lab's labels and field managers, so that the lesson's target can undo what was applied by hand.
func commandsOf(ctx context.Context, plan engine.Plan) ([]string, error) {
	var commands []string
	for _, step := range inOrder(plan) {
		if step.Explain == nil {
			continue
		}
		var files map[string][]byte
		if step.Files != nil {
			var err error
			if files, err = step.Files(ctx); err != nil {
				return nil, err
			}
		}
		for _, line := range step.Explain() {
			for name, content := range files {
				if before, _, found := strings.Cut(line, " -f "+name); found {
					line = fmt.Sprintf("%s -f - <<'EOF'\n%s\nEOF", before, bytes.TrimSpace(content))
				}
			}
			commands = append(commands, line)
		}
	}
	return commands, nil
}

// Break implements workshop.Lab.
func (w *workshopLab) Break(ctx context.Context, number int) error {
	return w.sabotaged(ctx, sabotage.All()[number-1].Break)
}

// Mend implements workshop.Lab. The commands turn the lesson on again as it was recorded.
func (w *workshopLab) Mend(ctx context.Context, number int) ([]string, error) {
	what := sabotage.All()[number-1]
	s, err := w.installed(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.sabotaged(ctx, what.Mend); err != nil {
		return nil, err
	}
	on, err := lesson.Found(s.Found)
	if err != nil {
		return nil, err
	}
	typed := cmp.Or(w.env.Command, "mage") + " sm:" + what.Target
	switch fault, authz := on.Fault(), on.Authz(); {
	case what.Target == "fault" && fault != nil:
		typed += fmt.Sprintf(" -percent=%v -delay=%s -path=%s -exact=%t", fault.Percent, fault.Delay, fault.Path,
			fault.Exact)
	case what.Target == "authz" && authz != nil:
		typed += fmt.Sprintf(" -strict=%t", authz.Strict)
		if without := authz.Without(); len(without) > 0 {
			typed += " -without=" + strings.Join(without, ",")
		}
	}
	return []string{typed}, nil
}

func (w *workshopLab) sabotaged(
	ctx context.Context, change func(context.Context, dynamic.Interface, string) error,
) error {
	s, err := w.installed(ctx)
	if err != nil {
		return err
	}
	client, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(client.Config())
	if err != nil {
		return fmt.Errorf("making a client for the lab's objects: %w", err)
	}
	return change(ctx, objects, s.Config.Namespace)
}

// workshopFile is where the learner's own notes on a lab are.
func workshopFile(env *session.Env, provider cluster.Provider) (string, error) {
	dir := env.StateDir
	if dir == "" {
		var err error
		if dir, err = embedded.DefaultStateDir(os.Getenv); err != nil {
			return "", err
		}
	}
	file := provider.Traits().Name + "-" + env.Settings.Cluster + ".json"
	return filepath.Join(filepath.Dir(dir), "workshop", file), nil
}

// WorkshopOptions are those of sm:workshop and sm:break.
type WorkshopOptions struct {
	// Program is this program, with which a station's commands are run; empty means os.Executable.
	Program string
	// Open opens the page in a browser at once.
	Open bool
}

// opened gives the lab of a workshop, and the engine at the learner's station.
func (o WorkshopOptions) opened(ctx context.Context, env *session.Env) (*workshopLab, *workshop.Engine, error) {
	if o.Program == "" {
		var err error
		if o.Program, err = os.Executable(); err != nil {
			return nil, nil, fmt.Errorf("finding this program, which runs the commands of a station: %w", err)
		}
	}
	// Like sm:lab, the workshop chooses where a new lab is created, and its commands create it there.
	chooser := env.With(true)
	chosen := env.Settings.Provider == "" || env.Settings.Provider == session.ProviderAuto
	if chosen {
		chooser.Settings.Provider = session.ProviderAuto
	}
	provider, err := chooser.FindProvider(ctx)
	if err != nil {
		return nil, nil, err
	}
	file, err := workshopFile(env, provider)
	if err != nil {
		return nil, nil, err
	}
	lab := newWorkshopLab(env, o.Program)
	if chosen {
		lab.settings = []string{"SM_PROVIDER=" + provider.Traits().Name}
	}
	e, err := workshop.New(lab, lab.feed, lesson.Claims(), file, cmp.Or(env.Command, "mage"))
	if err != nil {
		return nil, nil, err
	}
	return lab, e, e.Open(ctx)
}

// Workshop is the target that leads a learner through the lessons. Without a terminal it prints the station and ends.
func Workshop(options WorkshopOptions) Target {
	return func(ctx context.Context, env *session.Env) error {
		lab, e, err := options.opened(ctx, env)
		if err != nil {
			return err
		}
		if out := terminalOf(env); out != nil {
			return options.show(ctx, env, lab, e, out)
		}
		return workshop.Print(env.Out, e.View())
	}
}

// terminalOf gives the terminal on which the workshop can be shown, or nil.
func terminalOf(env *session.Env) *os.File {
	out, isFile := env.Out.(*os.File)
	if !isFile || !workshop.Interactive(os.Stdin, out, os.Getenv) {
		return nil
	}
	return out
}

// show shows the workshop on a terminal and on a page until the learner quits.
func (o WorkshopOptions) show(
	ctx context.Context, env *session.Env, lab *workshopLab, e *workshop.Engine, out *os.File,
) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	page, err := workshop.NewPage(ctx, e, lab.feed)
	if err != nil {
		return err
	}
	open := func() string {
		if err := browse(ctx, page.Address()); err != nil {
			return "no browser could be opened; the page is at " + page.Address()
		}
		return "the page is at " + page.Address()
	}
	if o.Open {
		env.Tell("%s", open())
	}
	var running sync.WaitGroup
	var serving error
	running.Go(func() { lab.feed.Run(ctx) })
	running.Go(func() { e.Run(ctx) })
	running.Go(func() { serving = page.Serve(ctx) })
	err = workshop.Terminal(ctx, e, lab.feed, os.Stdin, out, os.Getenv, open)
	stop()
	running.Wait()
	if v := e.View(); v.Broken {
		env.Tell("a fault is still in the lab; mage sm:break continues, mage sm:break -off restores the lab")
	} else {
		env.Tell("station %d of %d: %s; mage sm:workshop continues there", v.Index+1, v.Count, v.Station.Title)
	}
	return errors.Join(err, serving)
}

// BreakOptions are those of sm:break.
type BreakOptions struct {
	WorkshopOptions
	// Number is that of the fault; 0 chooses one at random.
	Number int
	// Hint takes the next hint, Off restores the lab.
	Hint, Off bool
}

// symptomLimit is how long sm:break waits for the first effect of a fault, and for a check.
const symptomLimit = 3 * time.Minute

// Break is the target that puts a fault into the lab, whose name it does not tell, and judges whether it is fixed. On
// a terminal the learner looks for it in the workshop.
func Break(options BreakOptions) Target {
	return func(ctx context.Context, env *session.Env) error {
		if options.Number < 0 || options.Number > len(sabotage.All()) {
			return problem.New(problem.SettingInvalid, nil, "-number=%d is not accepted; accepted: 1 to %d",
				options.Number, len(sabotage.All()))
		}
		if _, err := session.Open(ctx, env.Quiet(io.Discard), session.MustBeInstalled); err != nil {
			return err
		}
		lab, e, err := options.opened(ctx, env)
		if err != nil {
			return err
		}
		switch broken := e.View().Broken; {
		case !broken && (options.Off || options.Hint):
			return problem.New(problem.SettingInvalid, nil,
				"-hint and -off are not accepted, since sm:break has put no fault into this lab")
		case options.Off:
			if err := e.Restore(ctx); err != nil {
				return err
			}
			env.Tell("%s", e.View().Told)
			env.Next("mage sm:verify to see that every claim holds, or mage sm:break for another fault")
			return nil
		case !broken:
			if err := e.Break(ctx, options.Number); err != nil {
				return problem.New(problem.SettingInvalid, err, "no fault was put in")
			}
		case options.Hint:
			if err := e.Hint(); err != nil {
				return err
			}
		}
		if out := terminalOf(env); out != nil {
			return options.show(ctx, env, lab, e, out)
		}
		return judgeBreak(ctx, env, e)
	}
}

// judgeBreak checks until the symptom of the fault is seen, or the fault is fixed, and prints what was found.
func judgeBreak(ctx context.Context, env *session.Env, e *workshop.Engine) error {
	ctx, stop := context.WithTimeoutCause(ctx, symptomLimit,
		fmt.Errorf("no effect of the fault was seen within %s", symptomLimit))
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { e.Run(ctx) })
	if err := e.Check(); err != nil {
		return err
	}
	changed := e.Changed()
	for v := e.View(); !v.Done && (v.Report == nil || v.Report.Proven() || v.Checking != ""); v = e.View() {
		select {
		case <-changed:
			changed = e.Changed()
		case <-ctx.Done():
			running.Wait()
			return context.Cause(ctx)
		}
	}
	stop()
	running.Wait()
	v := e.View()
	if err := workshop.Print(env.Out, v); err != nil {
		return err
	}
	if v.Done {
		env.Next("mage sm:break for another one")
		return e.Next()
	}
	env.Next("fix it by any means, then mage sm:break, which judges it; -hint gives a hint, -off restores the lab")
	return nil
}
