//go:build e2e && e2efull

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ambientlab/internal/source"
)

// TestCommands makes a whole lab with the script of `sm:plan -out`, that is with kind, docker and kubectl alone, all of
// them of the pinned versions. The targets then find nothing to change, and every claim is proven.
func TestCommands(t *testing.T) {
	l := newLab(t, "by-hand")
	before := l.leaks(t)
	t.Cleanup(func() {
		if t.Failed() {
			l.dump(t)
		}
		l.try(t, "sm:delete")
	})
	dir := filepath.Join(t.TempDir(), "by-hand")
	l.mage(t, "sm:plan", "-out="+dir)
	l.nodeImage(t) // the commands cannot load it from a bundle, and say so

	programs := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(programs, "kind"), "sigs.k8s.io/kind")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building kind: %v\n%s", err, out)
	}
	builder, err := source.New(source.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kubectl, err := builder.Binary(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(kubectl, filepath.Join(programs, "kubectl")); err != nil {
		t.Fatal(err)
	}
	script := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "commands.sh"))
	script.Env = append(os.Environ(), append(l.env, "PATH="+programs+string(os.PathListSeparator)+os.Getenv("PATH"))...)
	out, err := script.CombinedOutput()
	t.Logf("commands.sh:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}

	versions := l.resourceVersions(t)
	for _, target := range []string{"sm:install", "sm:apps", "sm:waypoint", "sm:fault", "sm:authz"} {
		if done := l.mage(t, target); !strings.Contains(done.stderr, "no changes") {
			t.Errorf("%s does not say `no changes`", target)
		}
	}
	if after := l.resourceVersions(t); !sameVersions(t, versions, after) {
		t.Error("the targets changed objects")
	}
	t.Logf("sm:verify:\n%s", l.verified(t).stdout)
	l.mage(t, "sm:delete")
	if after := l.leaks(t); after != before {
		t.Errorf("before the lab there was %s, after it there is %s", before, after)
	}
}
