package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
	"ambientlab/internal/upstream"
)

// Env is what one run of the program brings to every session that it opens: the settings, where output goes, and the
// connection to Docker. sm:lab opens several sessions on one Env.
type Env struct {
	Settings Settings
	// Out takes data, such as tables; what happens goes to the sink.
	Out io.Writer
	// Command is how a user types a target; empty means "mage".
	Command string
	// StateDir holds the embedded control planes; empty means embedded.DefaultStateDir.
	StateDir string
	// Whole says that sm:lab runs, or sm:workshop: it may choose the provider, and its targets print no hint of what to
	// type next.
	Whole bool

	// Keep, if set, keeps a text that the target printed for the reports about the run, and Recording gives what
	// happened in the run until now.
	Keep      func(title, text string)
	Recording func(err error) record.Run

	sink   engine.Sink
	shared *shared
}

// shared is what all copies of an Env have in common.
type shared struct {
	bundle        *bundle.Bundle
	mirror        *bundle.Mirror
	bundleIgnored bool // the user was told
	told          bool // the user was told which images are substitutes
	docker        dockerEngine
	endpoint      docker.Endpoint
	provider      cluster.Provider
	upstream      *upstream.Upstream
}

// New makes an Env: data goes to out, events to sink. It opens the bundle, so that a wrong one is refused before
// anything is changed, and connects to nothing else.
func New(settings Settings, out io.Writer, sink engine.Sink) (*Env, error) {
	e := &Env{Settings: settings, Out: out, sink: sink, shared: &shared{upstream: upstream.New("")}}
	if settings.Bundle != "" {
		opened, err := bundle.Open(settings.Bundle)
		if err != nil {
			return nil, err
		}
		e.shared.bundle = opened
	}
	if settings.Mirror != "" {
		var ca []byte
		if settings.MirrorCA != "" {
			var err error
			if ca, err = os.ReadFile(settings.MirrorCA); err != nil {
				return nil, problem.New(problem.SettingFileUnreadable, err, "SM_REGISTRY_CA=%s", settings.MirrorCA)
			}
		}
		mirror, err := bundle.NewMirror(settings.Mirror, ca)
		if err != nil {
			return nil, err
		}
		e.shared.mirror = mirror
	}
	return e, nil
}

// Close closes the bundle.
func (e *Env) Close() error {
	var errs []error
	if e.shared.bundle != nil {
		errs = append(errs, e.shared.bundle.Close())
	}
	return errors.Join(errs...)
}

// With gives an Env with another value of Whole and everything else in common.
func (e *Env) With(whole bool) *Env {
	changed := *e
	changed.Whole = whole
	return &changed
}

// Quiet gives an Env that writes data to out and reports no events, and has everything else in common.
func (e *Env) Quiet(out io.Writer) *Env {
	changed := *e
	changed.Out, changed.sink, changed.Keep = out, silent{}, nil
	return &changed
}

// silent drops events.
type silent struct{}

func (silent) Handle(engine.Event) {}

// UseProvider makes every session use a provider, whatever the settings say.
func (e *Env) UseProvider(provider cluster.Provider) { e.shared.provider = provider }

// Tell prints a line for people, on stderr.
func (e *Env) Tell(format string, args ...any) {
	message := TypedWith(e.Command, fmt.Sprintf(format, args...))
	e.sink.Handle(engine.Event{Time: time.Now(), Kind: engine.Note, Message: message})
}

// Warn reports something that may break a lab, for CI platforms that show warnings. The target prints it too.
func (e *Env) Warn(title, message string) {
	e.sink.Handle(engine.Event{Time: time.Now(), Kind: engine.Warning, Title: title, Message: message})
}

// Remember keeps a text that the target printed for the reports about the run.
func (e *Env) Remember(title, text string) {
	if e.Keep != nil {
		e.Keep(title, text)
	}
}

// Next ends a target with what to type next. sm:lab runs the next target itself and prints no such line.
func (e *Env) Next(format string, args ...any) {
	if !e.Whole {
		e.Tell("next: "+format, args...)
	}
}

// Upstream gives the pinned manifests and charts.
func (e *Env) Upstream() *upstream.Upstream { return e.shared.upstream }

// Mirror is the registry of SM_REGISTRY_MIRROR, or nil. With a bundle nothing is pulled, so there is none.
func (e *Env) Mirror() *bundle.Mirror {
	if e.shared.bundle != nil {
		return nil
	}
	return e.shared.mirror
}

// Bundle is the bundle of SM_BUNDLE, or nil.
func (e *Env) Bundle() *bundle.Bundle { return e.shared.bundle }
