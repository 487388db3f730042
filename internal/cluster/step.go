package cluster

import (
	"context"
	"fmt"
	"time"

	"ambientlab/internal/engine"
)

// vetter is a provider whose cluster, there and ready, may still not do for the lab.
type vetter interface {
	// Vet says why it does not. It changes nothing.
	Vet(ctx context.Context, info Info) error
}

// filesSource is a provider whose CreateCommands name files.
type filesSource interface {
	// Files gives their content by name. It changes nothing.
	Files(ctx context.Context) (map[string][]byte, error)
}

// Step is a provider as the first step of a plan. A cluster that is ready holds only if it does for the lab: what needs
// this step touches nothing before that is known. The step has the milestones of this package, which a provider may
// reach early. A timeout of 0 means no deadline of its own.
func Step(p Provider, id string, timeout time.Duration) engine.Step {
	traits := p.Traits()
	var files func(context.Context) (map[string][]byte, error)
	if source, ok := p.(filesSource); ok {
		files = source.Files
	}
	return engine.Step{
		ID: id, Title: traits.Title, Timeout: timeout, Files: files,
		Milestones: []string{MilestoneNodes, MilestoneAPI},
		Explain:    func() []string { return traits.CreateCommands },
		Check: func(ctx context.Context) (engine.Status, error) {
			info, err := p.Inspect(ctx)
			if v, ok := p.(vetter); ok && err == nil && info.State == Ready {
				err = v.Vet(ctx, info)
			}
			return engine.Status{Done: err == nil && info.State == Ready, Message: info.Summary()}, err
		},
		Do:   p.Create,
		Undo: p.Delete,
		Preview: func(ctx context.Context) ([]engine.Change, error) {
			info, err := p.Inspect(ctx)
			if err != nil {
				return nil, err
			}
			object := fmt.Sprintf("%s cluster %s", info.Provider, info.Name)
			switch info.State {
			case Ready:
				return nil, nil
			case Absent:
				return []engine.Change{{Object: object, Action: engine.Create}}, nil
			case Partial:
				return []engine.Change{
					{Object: object, Action: engine.Delete, Detail: info.Message},
					{Object: object, Action: engine.Create},
				}, nil
			default:
				return []engine.Change{{Object: object, Action: engine.Update, Detail: info.Message}}, nil
			}
		},
	}
}

// Summary says in one line what the cluster is and how it is.
func (i Info) Summary() string {
	if i.State == Absent && i.Message != "" {
		return i.Message
	}
	text := fmt.Sprintf("%s cluster %s", i.Provider, i.Name)
	if i.Server != "" {
		text += " at " + i.Server
	}
	if i.Context != "" {
		text += " (context " + i.Context + ")"
	}
	if i.Version != "" {
		text += fmt.Sprintf(", %s, %d nodes", i.Version, kubernetesNodes(i.Nodes))
	}
	text += ": " + string(i.State)
	if i.Message != "" {
		text += ": " + i.Message
	}
	return text
}
