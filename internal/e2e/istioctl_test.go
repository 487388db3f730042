//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ambientlab/internal/source"
)

// testAsIstioctl holds sm:proxyConfig against istioctl, built from the same Istio module, for the same pods.
func (l *lab) testAsIstioctl(t *testing.T) {
	modules, err := filepath.Abs("../source/modules")
	if err != nil {
		t.Fatal(err)
	}
	builder, err := source.New(source.Options{ModulesDir: modules})
	if err != nil {
		t.Fatal(err)
	}
	istioctl, err := builder.Binary(t.Context(), "istioctl")
	if err != nil {
		t.Fatal(err)
	}
	ours := l.mage(t, "sm:proxyConfig").stdout
	sections := 0
	for section := range strings.SplitSeq("\n"+ours, "\n# ") {
		title, table, found := strings.Cut(section, "\n")
		if !found || table == "" {
			continue
		}
		pod, what, _ := strings.Cut(title, ": ")
		sections++
		command := exec.CommandContext(t.Context(), istioctl, "--kubeconfig", l.kubeconfig, "--namespace", "default",
			"proxy-config", strings.TrimSuffix(what, "s"), pod)
		theirs, err := command.Output()
		if err != nil {
			t.Fatalf("%v: %v", command, err)
		}
		if got, want := strings.TrimRight(table, "\n"), strings.TrimRight(string(theirs), "\n"); got != want {
			t.Errorf("%s of %s\nsm:proxyConfig:\n%s\nistioctl:\n%s", what, pod, got, want)
		}
	}
	if sections != 4 {
		t.Errorf("sm:proxyConfig printed %d tables, want listeners and routes of gateway and waypoint", sections)
	}
}
