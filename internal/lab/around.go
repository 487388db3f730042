package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/term"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"ambientlab/internal/cluster"
	"ambientlab/internal/command"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// The values of -keep: when sm:run leaves the lab that it created.
const (
	keepNever   = "never"
	keepFailure = "failure"
	keepAlways  = "always"
)

// around is what sm:run was asked for.
type around struct {
	lessons []lesson.Lesson
	keep    string
	command command.Command
}

// RunCommand is sm:run: it installs a lab, runs a command, and deletes the lab, also where the command fails. args is
// the command line, as of os.Args[1:]. Mage cannot be told to leave the command alone, so the target reads it itself.
func RunCommand(parent context.Context, args []string) error {
	how := manner{lines: true, ownEvidence: true} // which it collects before it deletes the lab
	return start(parent, "run", func(ctx context.Context, env *session.Env) error {
		asked, err := parseAround(args)
		if err != nil {
			return err
		}
		return asked.run(ctx, env)
	}, how)
}

// takeSignals gives a context that signals end. It takes SIGINT from Mage, which would end this process five seconds
// after it: a lab takes longer to be deleted. Mage asks for the signal when it starts the target, so this must not be
// the first thing that a target does. A write to a pipe whose reader has ended does not end the process either.
func takeSignals(parent context.Context) (context.Context, context.CancelFunc) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signal.Ignore(os.Interrupt)
	return signal.NotifyContext(parent, cancelling(signal.Ignored)...)
}

// parseAround reads sm:run's flags and its command from a command line.
func parseAround(args []string) (around, error) {
	asked := around{keep: keepNever}
	wrong := func(format string, values ...any) (around, error) {
		return asked, problem.New(problem.SettingInvalid, nil, format, values...).
			With("Type: mage sm:run -lessons=waypoint,authz -keep=failure -- COMMAND ARGUMENTS")
	}
	at := slices.IndexFunc(args, func(arg string) bool { return strings.EqualFold(arg, targetPrefix+"run") })
	flags, typed, separated := cutArgs(args[at+1:])
	if !separated || len(typed) == 0 {
		return wrong("sm:run has no command; accepted: a command after --")
	}
	asked.command = command.Command{Name: typed[0], Args: typed[1:]}
	chosen := "apps"
	for _, flag := range flags {
		name, value, _ := strings.Cut(flag, "=")
		switch strings.ToLower(name) {
		case "-lessons":
			chosen = value
		case "-keep":
			if !slices.Contains([]string{keepNever, keepFailure, keepAlways}, value) {
				return wrong("-keep=%q is not accepted; accepted: failure, always, never", value)
			}
			asked.keep = value
		default:
			return wrong("sm:run does not know %q; accepted before --: -lessons=LIST, -keep=failure, always or never",
				flag)
		}
	}
	var err error
	if asked.lessons, err = chosenLessons(chosen); err != nil {
		return asked, err
	}
	if _, err := exec.LookPath(asked.command.Name); err != nil {
		return wrong("the command %q cannot be run: %v", asked.command.Name, err)
	}
	return asked, nil
}

// cutArgs splits arguments at the first --.
func cutArgs(args []string) (before, after []string, found bool) {
	if at := slices.Index(args, "--"); at >= 0 {
		return args[:at], args[at+1:], true
	}
	return args, nil, false
}

// chosenLessons gives the lessons of a list, with those that they need, in order.
func chosenLessons(list string) ([]lesson.Lesson, error) {
	wanted := map[string]bool{}
	switch list {
	case "none":
	case "all":
		return lesson.Course(), nil
	default:
		for _, name := range strings.Split(list, ",") {
			l, known := lesson.Named(strings.TrimSpace(name))
			if !known {
				return nil, problem.New(problem.SettingInvalid, nil, "-lessons=%q is not accepted; accepted: "+
					"a list of %s; all; or none", list, strings.Join(lesson.Names(), ", "))
			}
			wanted[l.Name] = true
			for _, needed := range l.Needs {
				wanted[needed] = true
			}
		}
	}
	chosen := slices.DeleteFunc(lesson.All(), func(l lesson.Lesson) bool { return !wanted[l.Name] })
	for _, l := range chosen {
		for _, e := range l.Excludes {
			if wanted[e.Lesson] {
				return nil, problem.New(problem.SettingInvalid, nil, "-lessons=%q is not accepted: %s and %s "+
					"cannot be on "+
					"together: %s", list, l.Name, e.Lesson, e.Why)
			}
		}
	}
	return chosen, nil
}

// run installs, runs the command and cleans up. Its error is that of the work first.
func (a around) run(ctx context.Context, env *session.Env) error {
	whole := env.With(true)
	work, cancel := env.WorkDeadline(ctx)
	defer cancel()
	before, err := existed(work, whole)
	if err != nil {
		return err
	}
	work, stop := takeSignals(work)
	defer stop()
	failed := a.work(work, whole)
	// Nothing of what follows ends with the work: it has the time of SM_RESERVE.
	after, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), env.Settings.Reserve,
		fmt.Errorf("SM_RESERVE (%s) is over", env.Settings.Reserve))
	defer cancel()
	if failed != nil && !refusedInput(failed) {
		collect(after, env, env.Recording(failed), env.Settings.DumpOr(session.DefaultDump))
	}
	if before || a.keep == keepAlways || failed != nil && a.keep == keepFailure {
		why := "-keep=" + a.keep
		if before {
			why = "it existed before sm:run"
		}
		env.Tell("the lab stays (%s); SM_CLUSTER=%s mage sm:delete deletes it", why, env.Settings.Cluster)
		return failed
	}
	return errors.Join(failed, Delete(after, whole))
}

// existed tells whether there is a lab already, or a cluster that is not the lab's: then nothing is deleted.
func existed(ctx context.Context, env *session.Env) (bool, error) {
	s, err := session.Open(ctx, env, session.MayBeAbsent)
	if err != nil {
		return false, err
	}
	if !s.Traits.Owned {
		return s.Found.Record != nil || !s.Found.RecordKnown, nil
	}
	return s.Info.Exists && s.Info.State != cluster.Partial, nil
}

// work is everything until the command has ended.
func (a around) work(ctx context.Context, env *session.Env) error {
	if err := Install(ctx, env); err != nil {
		return err
	}
	for _, l := range a.lessons {
		if err := Lesson(l, false)(ctx, env); err != nil {
			return err
		}
	}
	s, err := session.Open(ctx, env, session.MustBeInstalled)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "ambientlab-run-")
	if err != nil {
		return fmt.Errorf("making a folder for the command's kubeconfig: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	environment, err := environmentOf(ctx, s, filepath.Join(folder, "kubeconfig"))
	if err != nil {
		return err
	}
	a.command.Env = environment
	step := engine.Step{ID: "command", Title: command.Command{Name: a.command.Name, Args: a.command.Args}.String()}
	step.Do = a.attach
	_, err = s.ApplyWithoutLab(ctx, engine.Plan{Name: "run", Title: step.Title, Steps: []engine.Step{step}})
	return err
}

// attach runs the command.
func (a around) attach(ctx context.Context) error {
	code, err := command.Attach(ctx, a.command, term.IsTerminal(int(os.Stdin.Fd())))
	if err != nil || code == 0 {
		return err
	}
	failed := problem.New(problem.CommandFailed, nil, "%s ended with exit code %d", a.command.Name, code)
	failed.Exit = code
	return failed
}

// environmentOf is what the command finds in its environment. Its kubeconfig is a file of its own, with this lab's
// cluster alone: another job on the same host may change the current context of the user's.
func environmentOf(ctx context.Context, s *session.Session, kubeconfig string) ([]string, error) {
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: cluster.NewKubeconfig(s.Settings.Kubeconfig).Paths()}
	config, err := rules.Load()
	if err == nil {
		config.CurrentContext = s.Info.Context
		if err = api.MinifyConfig(config); err == nil {
			err = api.FlattenConfig(config)
		}
	}
	if err == nil {
		err = clientcmd.WriteToFile(*config, kubeconfig)
	}
	if err != nil {
		return nil, problem.New(problem.KubeconfigInvalid, err, "writing a kubeconfig for the command")
	}
	address, answering, err := lesson.Reachable(ctx, s)
	if err != nil {
		return nil, err
	}
	environment := []string{
		"KUBECONFIG=" + kubeconfig, "SM_CLUSTER=" + s.Settings.Cluster, "SM_PROVIDER=" + s.Traits.Name,
		"SM_NAMESPACE=" + s.Config.Namespace, "LAB_CONTEXT=" + s.Info.Context, "LAB_NAMESPACE=" + s.Config.Namespace,
	}
	if address != "" {
		environment = append(environment, "LAB_GATEWAY="+address, "LAB_HOST="+names.Host)
	}
	if answering != "" {
		environment = append(environment, "LAB_URL=http://"+answering)
	}
	return environment, nil
}

// refusedInput tells whether a target was refused because of what it was given: a setting or a flag.
func refusedInput(err error) bool { return problem.ExitCode(err)/10 == int(problem.LayerSettings) }
