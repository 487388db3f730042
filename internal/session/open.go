package session

import (
	"context"
	"fmt"

	"github.com/moby/moby/client"

	"ambientlab/internal/apply"
	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/problem"
)

// Need is what a target needs of the lab.
type Need int

const (
	// MayBeAbsent is for targets that create the lab or only show it. Whatever state the cluster is in, there is a
	// session.
	MayBeAbsent Need = iota
	// OnlyFound is for sm:delete: it is MayBeAbsent, but a cluster that the lab created is asked nothing, since it may
	// not answer.
	OnlyFound
	// MustBeInstalled is for targets that work in a lab: its cluster exists and runs, and sm:install has recorded the
	// lab in it.
	MustBeInstalled
)

// Session is one run of one target. It does not change; With, OnlyKnown and WithoutCluster return changed copies.
type Session struct {
	*Env
	// Traits and Info are the provider's, and the cluster as it was when the session was opened.
	Traits cluster.Traits
	Info   cluster.Info
	Found  Found
	// Config is the settings, merged with what is installed.
	Config Config
	// Bundle is where images come from; nil means a registry. Unloadable is why the bundle of SM_BUNDLE cannot be used.
	Bundle     *bundle.Bundle
	Unloadable error

	provider   cluster.Provider
	connection *connection
	absent     error // connecting is no use, and this says why
}

// Open finds the lab and reads what is known of it.
func Open(ctx context.Context, env *Env, need Need) (*Session, error) {
	provider, err := env.FindProvider(ctx)
	if err != nil {
		return nil, err
	}
	traits, inspect := provider.Traits(), provider.Inspect
	if need == OnlyFound {
		inspect = func(ctx context.Context) (cluster.Info, error) { return cluster.Find(ctx, provider) }
	}
	info, err := inspect(ctx)
	if err != nil {
		return nil, err
	}
	s := &Session{Env: env, Traits: traits, Info: info, provider: provider, connection: &connection{}}
	if need == MustBeInstalled {
		if err := running(info); err != nil {
			return nil, err
		}
	}
	s.Bundle, s.Unloadable = s.usableBundle()
	if need != MustBeInstalled {
		if need == MayBeAbsent || !traits.Owned {
			s.Found = s.look(ctx)
		}
		s.Config = Merge(env.Settings, s.Traits, s.Found, AsAsked)
		return s, nil
	}
	if s.Unloadable != nil { // nor did sm:install load it
		return nil, s.Unloadable
	}
	// Like the steps that follow, this waits while the API server restarts. A cluster that does not run was refused
	// above.
	err = apply.Retry(ctx, restartPatience, func(ctx context.Context) error {
		if s.Found.Record, err = s.readRecord(ctx); err != nil {
			return err
		}
		if err := s.Installed(); err != nil {
			return err
		}
		s.Found, err = s.read(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.Config = Merge(env.Settings, s.Traits, s.Found, AsInstalled)
	return s, nil
}

// OpenForPreview is Open for a target that changes nothing. Where no Docker engine answers that kind would need, the
// session is that of a new kind cluster.
func OpenForPreview(ctx context.Context, env *Env) (*Session, error) {
	s, err := Open(ctx, env, MayBeAbsent)
	if err == nil || env.shared.provider != nil ||
		(env.Settings.Provider != "" && env.Settings.Provider != cluster.ProviderKind) {
		return s, err
	}
	if _, noDocker := env.DockerInfo(ctx); noDocker == nil || ctx.Err() != nil {
		return nil, err
	}
	config, configErr := env.kindConfig(client.SystemInfoResult{})
	if configErr != nil {
		return nil, configErr
	}
	env.Tell("%v", err)
	env.shared.docker = nil
	env.shared.provider = withoutEngine{cluster.NewKind(cluster.KindOptions{
		Name: env.Settings.Cluster, Config: config, NodeImage: env.Settings.NodeImage,
		Kubeconfig: env.Settings.Kubeconfig,
	})}
	return Open(ctx, env, MayBeAbsent)
}

// withoutEngine is the kind provider for a preview where no Docker engine answers: it takes the cluster to be absent.
type withoutEngine struct{ *cluster.Kind }

// Inspect finds nothing.
func (k withoutEngine) Inspect(context.Context) (cluster.Info, error) {
	info := k.Absent()
	info.Message = "no Docker engine answers, so the preview is for a new cluster"
	return info, nil
}

// Nodes finds none.
func (k withoutEngine) Nodes(context.Context) ([]cluster.Node, error) {
	return nil, problem.New(problem.ClusterNone, nil, "no Docker engine answers")
}

// running refuses a cluster that does not exist, that the lab must not use, or whose processes have ended.
func running(info cluster.Info) error {
	name := fmt.Sprintf("%s cluster %q", info.Provider, info.Name)
	switch info.State {
	case cluster.Absent:
		return problem.New(problem.ClusterNone, nil, "%s does not exist", name)
	case cluster.Partial:
		return problem.New(problem.ClusterNone, nil, "%s is not complete: %s", name, info.Message)
	case cluster.Stopped:
		return problem.New(problem.ClusterStopped, nil, "%s does not run: %s", name, info.Message)
	}
	return Usable(info)
}

// Usable refuses a cluster that the lab must not change, or cannot reach.
func Usable(info cluster.Info) error {
	switch info.State {
	case cluster.Foreign:
		return problem.New(problem.ClusterForeign, nil, "%s cluster %q: %s", info.Provider, info.Name, info.Message).
			With(fmt.Sprintf("To use it as it is: kubectl config use-context %s, and INSTALL_KIND=n.", info.Context))
	case cluster.Unreachable:
		return problem.New(problem.ClusterUnreachable, nil, "the cluster of context %s at %s does not answer: %s",
			info.Context, info.Server, info.Message)
	}
	return nil
}

// Installed refuses a cluster without this lab's record: the current context may lead to another cluster than the one
// that sm:install worked on.
func (s *Session) Installed() error {
	where := s.Info.Provider + " cluster " + s.Info.Name
	if !s.Traits.Owned {
		where = fmt.Sprintf("the cluster of context %s at %s", s.Info.Context, s.Info.Server)
	}
	switch record := s.Found.Record; {
	case record == nil && s.Traits.Owned:
		return problem.New(problem.ClusterNone, nil, "lab %q is not installed on %s", s.Settings.Cluster, where)
	case record == nil:
		return problem.New(problem.ClusterNone, nil, "lab %q is not installed on %s", s.Settings.Cluster, where).
			With("If you mean another cluster, choose it: kubectl config use-context.")
	case record.Lab != s.Settings.Cluster:
		return problem.New(problem.ObjectOfAnotherLab, nil, "%s has lab %q, not %q", where, record.Lab,
			s.Settings.Cluster).
			With("To use that lab: SM_CLUSTER=" + record.Lab + ".")
	}
	return nil
}

// usableBundle gives the bundle of SM_BUNDLE where its images can be loaded into the nodes, and otherwise why not. A
// provider whose nodes run no images ignores it.
func (s *Session) usableBundle() (*bundle.Bundle, error) {
	switch {
	case s.shared.bundle == nil:
		return nil, nil
	case s.Traits.NoImages != "":
		if !s.shared.bundleIgnored {
			s.shared.bundleIgnored = true
			s.Tell("SM_BUNDLE is ignored: %s", s.Traits.NoImages)
		}
		return nil, nil
	case s.Info.Exists && s.Info.Elsewhere != "":
		return nil, problem.New(problem.SettingInvalid, nil,
			"SM_BUNDLE=%s: the lab loads images only into nodes that are kind containers on this host; "+
				"the cluster of context %s has %s",
			s.Settings.Bundle, s.Info.Context, s.Info.Elsewhere).
			With("Unset SM_BUNDLE, and let the nodes pull their images.")
	}
	return s.shared.bundle, nil
}

// With gives the session with the settings and the record merged by another rule.
func (s *Session) With(rule Rule) *Session {
	changed := *s
	changed.Config = Merge(s.Settings, s.Traits, s.Found, rule)
	return &changed
}

// OnlyKnown gives the session without parts of which it is not known whether they are installed. It is for targets that
// only show.
func (s *Session) OnlyKnown() *Session {
	changed := *s
	changed.Found.Unknown = false
	return &changed
}

// WithoutCluster gives the session for a preview of a cluster that does not exist: connecting fails with
// problem.ClusterNone, and why.
func (s *Session) WithoutCluster(why string) *Session {
	changed := *s
	changed.absent = problem.New(problem.ClusterNone, nil, "%s", why)
	return &changed
}

// NoCluster tells whether the session is for a preview of a cluster that does not exist.
func (s *Session) NoCluster() bool { return s.absent != nil }

// Provider is the lab's provider.
func (s *Session) Provider() cluster.Provider { return s.provider }
