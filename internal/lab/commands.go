package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ambientlab/internal/command"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// commandsFile is the script that sm:plan -out writes.
const commandsFile = "commands.sh"

// emptyFolder refuses a folder for files that holds something. An empty name means that no files are asked for.
func emptyFolder(dir string) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return problem.New(
			problem.SettingInvalid,
			err,
			"-out=%q is not accepted; accepted: a folder that is empty or does not exist",
			dir,
		)
	case len(entries) > 0:
		return problem.New(
			problem.SettingInvalid,
			nil,
			"-out=%q is not accepted, because the folder holds %s; accepted: a folder that is empty or does not exist",
			dir,
			entries[0].Name(),
		)
	}
	return nil
}

// writeCommands writes a script that does what the plans do, and the files that its commands name. Only the user can
// read them, since SM_MANIFESTS may hold Secrets.
func writeCommands(ctx context.Context, s *session.Session, c *charts, plans []engine.Plan, dir string) error {
	refs, err := podImagesOf(ctx, s, c)
	if err != nil {
		return err
	}
	script := scriptHead(s, refs)
	files := map[string][]byte{}
	for _, plan := range plans {
		fmt.Fprintf(script, "\n# mage sm:%s: %s\n", plan.Name, plan.Title)
		for _, step := range inOrder(plan) {
			if step.Explain == nil {
				continue
			}
			fmt.Fprintf(script, "\n# %s\n%s\n", step.Title, strings.Join(step.Explain(), "\n"))
			if step.Files == nil {
				continue
			}
			named, err := step.Files(ctx)
			if err != nil {
				return fmt.Errorf("writing the files of %s: %w", step.Title, err)
			}
			for name, content := range named {
				if _, twice := files[name]; twice {
					return problem.New(problem.Internal, nil, "two steps of the plans have a file %s", name)
				}
				files[name] = content
			}
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return problem.New(problem.SettingInvalid, err, "-out=%q cannot be created", dir)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o600); err != nil {
			return fmt.Errorf("writing the files of the plan: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, commandsFile), script.Bytes(), 0o700); err != nil {
		return fmt.Errorf("writing the commands of the plan: %w", err)
	}
	s.Tell(
		"%d files are in %s; sh %s makes the same with the commands alone",
		len(files),
		dir,
		filepath.Join(dir, commandsFile),
	)
	return nil
}

// scriptHead begins the script. kubectl is bound to the lab's cluster there, whatever the current context is.
func scriptHead(s *session.Session, images []string) *bytes.Buffer {
	head := &bytes.Buffer{}
	fmt.Fprintf(
		head,
		"#!/bin/sh\n# Lab %s in %s, made with the commands alone. Written by mage sm:plan -out.\n"+
			"#\n# The pods run these images:\n",
		s.Settings.Cluster,
		s.Traits.Title,
	)
	for _, image := range images {
		fmt.Fprintf(head, "#   %s\n", image)
	}
	fmt.Fprintf(head, `set -eu
cd "$(dirname "$0")"

# kubectl works on the lab's cluster alone. It applies again where a webhook or a new kind is not served yet.
kubectl() {
  tries=1
  if [ "$1" = apply ]; then tries=24; fi
  until command kubectl --context %s "$@"; do
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then return 1; fi
    sleep 5
  done
}
`, command.Quoted(s.Info.Context))
	return head
}

// inOrder lists a plan's steps so that each comes after those that it needs, and otherwise as the plan does.
func inOrder(plan engine.Plan) []engine.Step {
	var ordered []engine.Step
	done := map[string]bool{}
	ready := func(step engine.Step) bool {
		return !done[step.ID] &&
			!slices.ContainsFunc(step.Needs, func(need string) bool { return !done[engine.NeededStep(need)] })
	}
	for next := slices.IndexFunc(plan.Steps, ready); next >= 0; next = slices.IndexFunc(plan.Steps, ready) {
		ordered = append(ordered, plan.Steps[next])
		done[plan.Steps[next].ID] = true
	}
	return ordered
}
