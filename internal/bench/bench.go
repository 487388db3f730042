package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/moby/moby/client"

	"ambientlab/internal/bundle"
	"ambientlab/internal/docker"
	"ambientlab/internal/source"
)

// bench is one run of this program: its options, the programs that it compares, and what it measured.
type bench struct {
	options
	report *report
	docker *client.Client
	bundle *bundle.Bundle
	// dir holds the programs and files of this run; kubeconfig is the one of its clusters.
	dir, kubeconfig string
	// kind, kubectl, istioctl and lab are programs that were built from the pinned modules.
	kind, kubectl, istioctl, lab string
	// nodeImage is the node image's name in Docker.
	nodeImage string
	name      string
	// installed says that the lab is installed.
	installed bool
}

// newBench builds the programs and puts the node image into Docker, so that none of it is measured.
func newBench(ctx context.Context, opts options) (*bench, error) {
	dir, err := os.MkdirTemp("", "ambientlab-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{
		options: opts, report: newReport(), dir: dir, kubeconfig: filepath.Join(dir, "kubeconfig"),
		name: fmt.Sprintf("bench-%d", os.Getpid()),
	}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) prepare(ctx context.Context) (err error) {
	if b.bundle, err = bundle.Open(os.Getenv("SM_BUNDLE")); err != nil {
		return err
	}
	api, endpoint, err := docker.New(docker.SystemEnv())
	if err != nil {
		return err
	}
	b.docker = api
	if err := docker.Ping(ctx, api, endpoint); err != nil {
		return err
	}
	builder, err := source.New(source.Options{Progress: func(program, message string) {
		fmt.Fprintf(os.Stderr, "building %s: %s\n", program, message)
	}})
	if err != nil {
		return err
	}
	if b.kubectl, err = builder.Binary(ctx, "kubectl"); err != nil {
		return err
	}
	if b.istioctl, err = builder.Binary(ctx, "istioctl"); err != nil {
		return err
	}
	b.kind, b.lab = b.file("kind"), b.file("lab")
	if runtime.GOOS == "windows" {
		b.kind, b.lab = b.kind+".exe", b.lab+".exe"
	}
	if err := b.run(ctx, nil, "go", "build", "-o", b.kind, "sigs.k8s.io/kind"); err != nil {
		return err
	}
	if err := b.run(ctx, nil, "go", "tool", "mage", "-compile", b.lab); err != nil {
		return err
	}
	for _, image := range b.bundle.Images() {
		if isNodeImage(image.Ref) {
			loaded, err := bundle.LoadNodeImage(ctx, b.docker, b.bundle, image.Ref)
			if err != nil {
				return err
			}
			b.nodeImage = loaded.Ref
		}
	}
	if b.nodeImage == "" {
		return fmt.Errorf("the bundle %s has no node image", b.bundle.Path())
	}
	return nil
}

func isNodeImage(ref string) bool { return strings.Contains(ref, "kindest/node:") }

func (b *bench) file(name string) string { return filepath.Join(b.dir, name) }

// close removes what this run made, its clusters too.
func (b *bench) close() error {
	var errs []error
	if b.bundle != nil {
		errs = append(errs, b.bundle.Close())
	}
	if b.keep {
		fmt.Fprintf(os.Stderr, "kept: lab %s with KUBECONFIG=%s\n", b.name, b.kubeconfig)
		return errors.Join(errs...)
	}
	ctx := context.Background()
	if b.docker != nil && b.lab != "" {
		errs = append(errs, b.run(ctx, b.labEnv(), b.lab, "sm:delete"))
		errs = append(errs, b.run(ctx, nil, b.kind, "delete", "cluster", "--name", b.sequenceName(), "--kubeconfig",
			b.kubeconfig))
	}
	return errors.Join(append(errs, os.RemoveAll(b.dir))...)
}

// needLab installs the lab where no part before has.
func (b *bench) needLab(ctx context.Context) error {
	if b.installed {
		return nil
	}
	if err := b.run(ctx, b.labEnv(), b.lab, "sm:install"); err != nil {
		return err
	}
	b.installed = true
	return nil
}

// labEnv is the environment of the lab's targets: no add-ons, as the sequence has none.
func (b *bench) labEnv(more ...string) []string {
	return append([]string{
		"SM_CLUSTER=" + b.name, "KUBECONFIG=" + b.kubeconfig, "SM_ADDONS=none", "SM_PROVIDER=kind", "SM_OUTPUT=plain",
		"SM_BUNDLE=" + os.Getenv("SM_BUNDLE"),
	}, more...)
}

// run runs a command, and gives what it printed where it fails.
func (b *bench) run(ctx context.Context, env []string, name string, args ...string) error {
	_, err := b.output(ctx, env, name, args...)
	return err
}

func (b *bench) output(ctx context.Context, env []string, name string, args ...string) (*exec.Cmd, error) {
	command := exec.CommandContext(ctx, name, args...)
	command.Env = append(os.Environ(), env...)
	out, err := command.CombinedOutput()
	if err != nil {
		return command, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return command, nil
}

// with runs kubectl on the cluster that the kubeconfig names.
func (b *bench) with(ctx context.Context, args ...string) error {
	return b.run(ctx, nil, b.kubectl, append([]string{"--kubeconfig", b.kubeconfig}, args...)...)
}

// writeObjects writes objects as a JSON list, which kubectl reads.
func (b *bench) writeObjects(name string, items any) (string, error) {
	raw, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		return "", err
	}
	file := b.file(name)
	return file, os.WriteFile(file, raw, 0o600)
}
