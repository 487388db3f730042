package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// edit is a change of one upstream line, for a program that has no setting for it.
type edit struct {
	// Module is the module that the line is in, File its path in there.
	Module, File string
	// Old occurs in the file once. New replaces it.
	Old, New string
}

// edits lists what is changed in a program. MetalLB's controller serves its metrics and its health on every address of
// its pod. As a process of the embedded control plane it would serve them on every address of the user's machine, and
// so is changed to use loopback only.
func edits(program string) []edit {
	if program != "metallb-controller-loopback" {
		return nil
	}
	const metallb = "go.universe.tf/metallb"
	return []edit{
		{
			metallb, "internal/k8s/k8s.go", `fmt.Sprintf("0.0.0.0:%d", cfg.MetricsPort)`,
			`fmt.Sprintf("127.0.0.1:%d", cfg.MetricsPort)`,
		},
		{
			metallb, "controller/main.go", `fmt.Sprintf(":%d", *healthProbePort)`,
			`fmt.Sprintf("127.0.0.1:%d", *healthProbePort)`,
		},
		// controller-runtime v0.24 asks for one argument more; the webhook itself does not run here.
		{
			metallb, "internal/k8s/webhook.go", `conversion.NewWebhookHandler(mgr.GetScheme())`,
			`conversion.NewWebhookHandler(mgr.GetScheme(), mgr.GetConverterRegistry())`,
		},
	}
}

// edited copies the module that a program's edits are in, makes the edits in the copy, and returns the flag with which
// the go command uses the copy. The go.mod and go.sum of the nested module do not change: they still check every other
// module.
func (b *Builder) edited(ctx context.Context, p Program, dir string) (flag string, err error) {
	changes := edits(p.Name)
	from, err := b.ModuleDir(ctx, p.Module, changes[0].Module)
	if err != nil {
		return "", err
	}
	into := filepath.Join(dir, "edited")
	// CopyFS makes the files writable, which are read-only in the module cache.
	if err := os.CopyFS(into, os.DirFS(from)); err != nil {
		return "", fmt.Errorf("copying %s: %w", changes[0].Module, err)
	}
	for _, change := range changes {
		path := filepath.Join(into, filepath.FromSlash(change.File))
		content, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("editing %s: %w", change.File, err)
		}
		if n := strings.Count(string(content), change.Old); n != 1 {
			return "", fmt.Errorf("editing %s of %s: %q occurs %d times, not once: the edit is for another version",
				change.File, change.Module, change.Old, n)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(content), change.Old, change.New, 1)),
			0o644); err != nil {
			return "", fmt.Errorf("editing %s: %w", change.File, err)
		}
	}
	mod, err := os.ReadFile(filepath.Join(b.moduleFolder(p), "go.mod"))
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(b.moduleFolder(p), "go.sum"))
	if err != nil {
		return "", err
	}
	modfile := filepath.Join(dir, "go.mod")
	mod = fmt.Appendf(mod, "\nreplace %s => %q\n", changes[0].Module, into)
	if err := os.WriteFile(modfile, mod, 0o644); err != nil {
		return "", err
	}
	return "-modfile=" + modfile, os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644)
}
