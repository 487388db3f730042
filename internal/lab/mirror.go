package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// usesMirror tells whether the nodes pull through the mirror: those of a kind cluster of the lab's own.
func usesMirror(s *session.Session) bool {
	_, runsImages := s.Provider().(cluster.NodeImageUser)
	return s.Mirror() != nil && runsImages && s.Traits.Owned
}

// checkMirror refuses a mirror that does not answer, before anything is changed. Where nodes do not use it, that is
// told.
func checkMirror(ctx context.Context, s *session.Session) error {
	switch {
	case s.Mirror() == nil:
		return nil
	case !usesMirror(s):
		s.Tell("SM_REGISTRY_MIRROR is ignored: only the nodes of a kind cluster of the lab's own use it")
		return nil
	}
	return s.Mirror().Check(ctx)
}

// mirroredNodeImageStep pulls the nodes' image through the mirror and loads it into Docker, whose own mirrors are a
// setting of the engine. An image with a digest is left to Docker, which would not find it again.
func mirroredNodeImageStep(s *session.Session, id string) engine.Step {
	if !usesMirror(s) {
		return engine.Step{}
	}
	missing := func(ctx context.Context) ([]string, error) {
		refs, err := nodeImages(s)
		if err != nil {
			return nil, err
		}
		var missing []string
		for _, ref := range refs {
			if strings.Contains(ref, "@") {
				continue
			}
			if _, err := s.Docker().ImageInspect(ctx, ref); errdefs.IsNotFound(err) {
				missing = append(missing, ref)
			} else if err != nil {
				return nil, fmt.Errorf("looking for node image %s: %w", ref, err)
			}
		}
		return missing, nil
	}
	return engine.Step{
		ID: id, Title: "Node image through the registry mirror", Timeout: s.Settings.StepTimeout(),
		Check: func(ctx context.Context) (engine.Status, error) {
			if s.Docker() == nil { // a preview
				return engine.Status{Message: "no Docker engine answers"}, nil
			}
			refs, err := missing(ctx)
			return engine.Status{Done: err == nil && len(refs) == 0, Message: strings.Join(refs, ", ")}, err
		},
		Do: func(ctx context.Context) error {
			refs, err := missing(ctx)
			if err != nil {
				return err
			}
			return loadThroughMirror(ctx, s, refs)
		},
		Explain: func() []string {
			return []string{"# mage sm:install pulls the node image through SM_REGISTRY_MIRROR into Docker"}
		},
	}
}

// loadThroughMirror pulls images into a folder for the moment, and loads them into Docker.
func loadThroughMirror(ctx context.Context, s *session.Session, refs []string) (err error) {
	folder, err := os.MkdirTemp("", "ambientlab-node-image-")
	if err != nil {
		return fmt.Errorf("making a folder for the node image: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	writer, err := bundle.Create(folder)
	if err != nil {
		return err
	}
	options := s.Mirror().Options()
	options.Progress = func(p bundle.Progress) { engine.Progress(ctx, "%s", p) }
	var pinned []string
	for _, ref := range refs {
		pinned = append(pinned, session.Pinned(ref))
	}
	platform := bundle.Platform("linux", runtime.GOARCH)
	if info, err := s.DockerInfo(ctx); err == nil {
		platform = bundle.Platform(info.Info.OSType, info.Info.Architecture)
	}
	if err := bundle.Pull(ctx, pinned, platform, writer, options); err != nil {
		return errors.Join(err, writer.Abort())
	}
	if err := writer.Commit(); err != nil {
		return err
	}
	opened, err := bundle.Open(folder)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	for _, ref := range pinned {
		if _, err := bundle.LoadNodeImage(ctx, s.Docker(), opened, ref); err != nil {
			return err
		}
		engine.Changed(ctx, engine.Change{
			Object: "Docker image " + ref, Action: engine.Create, Detail: "through " + s.Mirror().String(),
		})
	}
	return nil
}

// mirrored makes the step of the cluster write into every node that it pulls through the mirror.
func mirrored(s *session.Session, step engine.Step) engine.Step {
	if !usesMirror(s) {
		return step
	}
	check, do := step.Check, step.Do
	step.Check = func(ctx context.Context) (engine.Status, error) {
		status, err := check(ctx)
		if err != nil || !status.Done {
			return status, err
		}
		lacking, err := nodesWithoutMirror(ctx, s)
		if err != nil || len(lacking) == 0 {
			return status, err
		}
		return engine.Status{Message: "without the registry mirror: " + strings.Join(lacking, ", ")}, nil
	}
	step.Do = func(ctx context.Context) error {
		if err := do(ctx); err != nil {
			return err
		}
		return useMirror(ctx, s)
	}
	return step
}

// nodesWithoutMirror lists the nodes that have other files than those of the mirror.
func nodesWithoutMirror(ctx context.Context, s *session.Session) ([]string, error) {
	nodes, err := s.Provider().Nodes(ctx)
	if err != nil {
		return nil, err
	}
	var lacking []string
	for _, n := range nodes {
		if n.Role == node.LoadBalancer {
			continue
		}
		for path, content := range s.Mirror().NodeFiles() {
			got, err := docker.Exec(ctx, s.Docker(), n.ContainerID, "sh", "-c", "cat "+path+" 2>/dev/null || true")
			if err != nil {
				return nil, err
			}
			if got != string(content) && !slices.Contains(lacking, n.Name) {
				lacking = append(lacking, n.Name)
			}
		}
	}
	return lacking, nil
}

// useMirror writes the files of the mirror into the nodes that lack them. containerd reads them at each pull.
func useMirror(ctx context.Context, s *session.Session) error {
	lacking, err := nodesWithoutMirror(ctx, s)
	if err != nil {
		return err
	}
	for _, n := range lacking {
		_, err := docker.Exec(ctx, s.Docker(), n, "grep", "-q", bundle.HostsDir, "/etc/containerd/config.toml")
		if err != nil {
			return problem.New(problem.SettingConflict, err,
				"SM_REGISTRY_MIRROR is set, and node %s was created without it", n).
				With("Delete the lab with `mage sm:delete` and create it again, or unset SM_REGISTRY_MIRROR.")
		}
		for path, content := range s.Mirror().NodeFiles() {
			write := func(w io.Writer) error {
				_, err := w.Write(content)
				return err
			}
			command := fmt.Sprintf("umask 077 && mkdir -p $(dirname %[1]s) && cat > %[1]s", path)
			if _, err := docker.ExecInput(ctx, s.Docker(), n, write, "sh", "-c", command); err != nil {
				return err
			}
		}
		engine.Changed(ctx, engine.Change{
			Object: "node " + n, Action: engine.Update, Detail: "pulls through " + s.Mirror().String(),
		})
	}
	return nil
}
