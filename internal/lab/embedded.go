package lab

import (
	"context"
	"slices"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/engine"
	"ambientlab/internal/mesh"
	"ambientlab/internal/source"
	"ambientlab/internal/upstream"
)

// Processes of the embedded control plane that are part of what is installed on it.
const (
	processIstiod  = "istiod"
	processMetalLB = "metallb-controller"
)

func (l *Lab) chooseEmbedded(context.Context) error {
	later := []string{processIstiod}
	if l.Settings.UseMetalLB() {
		later = []string{processMetalLB, processIstiod}
	}
	provider, err := embedded.New(embedded.Options{
		Later:   later,
		Packets: l.Settings.Packets, Ztunnel: l.Settings.Ztunnel,
		Name: l.Settings.Cluster, Workers: l.Settings.Workers, StateDir: l.stateDir, Kubeconfig: l.Settings.Kubeconfig,
		Programs: func(progress func(program, message string)) (embedded.Programs, error) {
			return source.New(source.Options{Progress: progress})
		},
	})
	if err != nil {
		return err
	}
	l.provider, l.embedded = provider, provider
	l.Settings.Addons = nil // their pods would run nothing, but for those that were asked for
	if l.bundle != nil {
		err = l.bundle.Close()
		l.bundle = nil
		l.tell("SM_BUNDLE is left aside: the embedded control plane runs no images")
	}
	return err
}

// carriesPackets tells whether pods exchange packets.
func (l *Lab) carriesPackets() bool { return l.embedded == nil || l.embedded.Packets() }

// meshOptions says how the proxies are asked: where pods run none, istiod is asked what it would send them.
func (l *Lab) meshOptions() []mesh.Option {
	if l.carriesPackets() {
		return nil
	}
	return []mesh.Option{mesh.WithIstiod(l.embedded.XDSAddress)}
}

// processStep runs one of the embedded control plane's processes. With any other provider pods do that.
func (l *Lab) processStep(id, title, process string, needs ...string) engine.Step {
	if l.embedded == nil {
		return engine.Step{}
	}
	return engine.Step{
		ID: id, Title: title, Needs: needs, // no timeout: its program may have to be built first
		Check: func(ctx context.Context) (engine.Status, error) {
			running, message, err := l.embedded.Started(ctx, process)
			return engine.Status{Done: running, Message: message}, err
		},
		Do:   func(ctx context.Context) error { return l.embedded.Start(ctx, process) },
		Undo: func(ctx context.Context) error { return l.embedded.Stop(ctx, process) },
		Preview: func(ctx context.Context) ([]engine.Change, error) {
			running, message, err := l.embedded.Started(ctx, process)
			if running || err != nil {
				return nil, err
			}
			return []engine.Change{{Object: "process " + process, Action: engine.Run, Detail: message}}, nil
		},
	}
}

// stopStep ends one of these processes.
func (l *Lab) stopStep(id, title, process string, needs ...string) engine.Step {
	if l.embedded == nil {
		return engine.Step{}
	}
	return engine.Step{
		ID: id, Title: title + l.unwanted(), Needs: needs, Timeout: quick,
		Check: func(ctx context.Context) (engine.Status, error) {
			running, message, err := l.embedded.Started(ctx, process)
			return engine.Status{Done: !running, Message: message}, err
		},
		Do: func(ctx context.Context) error { return l.embedded.Stop(ctx, process) },
	}
}

// simulated says of a step whose pods do not really run that they do not: in its title, and in what it finds.
func (l *Lab) simulated(step engine.Step, set func(context.Context) (apply.Set, error)) engine.Step {
	if l.embedded == nil || step.Check == nil {
		return step
	}
	check := step.Check
	step.Check = func(ctx context.Context) (engine.Status, error) {
		status, err := check(ctx)
		if err != nil || !status.Done {
			return status, err
		}
		rendered, err := set(ctx)
		if err != nil {
			return status, err
		}
		if slices.ContainsFunc(rendered.Objects, l.embedded.Simulated) {
			status.Message = "simulated: its objects are there, its pods run nothing"
		}
		return status, nil
	}
	return step
}

// tellWebhooks says once what the embedded control plane does to the webhooks of what is installed on it.
func (l *Lab) tellWebhooks(ctx context.Context) {
	if l.embedded == nil {
		return
	}
	var all objects
	if rendered, err := l.renderIstio(ctx, substitutes{}); err == nil { // else the step that applies them has said so
		all = append(append(all, rendered[upstream.Base]...), rendered[upstream.Istiod]...)
	}
	if l.Settings.UseMetalLB() {
		if rendered, err := l.upstream.MetalLB(ctx); err == nil {
			all = append(all, rendered...)
		}
	}
	for _, line := range embedded.Webhooks(all) {
		l.tell("webhooks: %s", line)
	}
}
