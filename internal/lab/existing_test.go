package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"ambientlab/internal/bundle"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

func existingDesk(t *testing.T, a *apiServer, docker *engineInMemory, settings ...string) bed {
	t.Helper()
	return newDesk(t, docker,
		append([]string{"INSTALL_KIND=n", "SM_ADDONS=none", "KUBECONFIG=" + a.kubeconfig(t)}, settings...)...)
}

// TestExistingWithoutRecord: a context that leads to another cluster than the lab's must not be worked on.
func TestExistingWithoutRecord(t *testing.T) {
	a := newAPIServer(t)
	d := existingDesk(t, a, nil)
	for name, target := range d.afterInstall() {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a.beyond = cancel // nothing beyond the record needs to be looked at
		refused(t, name, target(ctx), problem.ClusterNone, `"ambient"`, "context mine", a.URL, "mage sm:install",
			"kubectl config use-context")
	}
	a.record = map[string]string{"lab": "other"}
	refused(t, "apps", d.Apps(t.Context(), false), problem.ObjectOfAnotherLab, `"other"`, "SM_CLUSTER=other")
	if err := d.Status(t.Context()); err != nil {
		t.Error(err)
	}
	says(t, "what status says", d.talk.String(), `lab "other"`)
	a.untouched(t)
}

// TestExistingIsNamedFirst: before the first step asks for anything, it is said where it will happen; once is enough.
func TestExistingIsNamedFirst(t *testing.T) {
	for name, target := range map[string]func(bed, context.Context) error{
		"install": func(d bed, ctx context.Context) error { return d.Install(ctx) },
		"apps":    func(d bed, ctx context.Context) error { return d.Apps(ctx, false) },
		"delete":  func(d bed, ctx context.Context) error { return d.Delete(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPIServer(t)
			a.record = map[string]string{"lab": "ambient", "substitutes": "{}"}
			d := existingDesk(t, a, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var before string
			var once sync.Once
			a.beyond = func() {
				once.Do(func() { before = d.talk.String() })
				cancel() // this API server does not serve what comes after
			}
			if err := target(d, ctx); err == nil {
				t.Error("an interrupted target succeeded")
			}
			says(t, "what was said by then", before, "context mine at "+a.URL)
			if n := strings.Count(d.talk.String(), "which the lab did not create"); n != 1 {
				t.Errorf("it was said %d times:\n%s", n, d.talk)
			}
			a.untouched(t)
		})
	}
}

// TestExistingVetted: a healthy cluster is checked as closely, and nothing is touched before.
func TestExistingVetted(t *testing.T) {
	a := newAPIServer(t)
	a.version = "v1.31.2"
	refused(t, "an old cluster", existingDesk(t, a, nil).Install(t.Context()), problem.ClusterVersion, "v1.31.2")
	a.version, a.denied = "v1.36.3", true
	refused(t, "missing rights", existingDesk(t, a, nil).Install(t.Context()), problem.ApplyForbidden,
		"create namespaces")
	a.untouched(t)
}

// TestExistingNodeNotReady: a node that is not ready is its owner's affair.
func TestExistingNodeNotReady(t *testing.T) {
	a := newAPIServer(t)
	a.nodes = append(a.nodes, "n3=172.18.0.4!")
	d := existingDesk(t, a, nil)
	s := d.open(t)
	plan := engine.Plan{Name: "cluster", Steps: []engine.Step{clusterStep(s, "cluster")}}
	if _, err := s.Apply(t.Context(), plan); err != nil {
		t.Error(err)
	}
	says(t, "the step", d.talk.String(), "n3", "cni plugin not initialized")
}

func TestExistingUnreachable(t *testing.T) {
	a := newAPIServer(t)
	d := existingDesk(t, a, nil)
	a.Close()
	targets := d.afterInstall()
	targets["install"], targets["delete"] = d.Install, d.Delete
	for name, target := range targets {
		refused(t, name, target(t.Context()), problem.ClusterUnreachable, "context mine", "refused")
	}
	if err := d.Status(t.Context()); err != nil {
		t.Error(err)
	}
	says(t, "status", d.out.String(), "unreachable", "refused")
	if talk := d.talk.String(); strings.Contains(talk, "next: mage sm:install") {
		t.Errorf("status advises an installation:\n%s", talk)
	}
}

// TestExistingMetalLB: the addresses come from the nodes' Docker network, and without one the setting is refused.
func TestExistingMetalLB(t *testing.T) {
	a := newAPIServer(t)
	elsewhere := newEngine()
	for name, d := range map[string]bed{
		"no Docker":            existingDesk(t, a, nil, "SM_METALLB=on"),
		"nodes somewhere else": existingDesk(t, a, &elsewhere, "SM_METALLB=on"),
	} {
		refused(t, name, d.Install(t.Context()), problem.SettingInvalid, "SM_METALLB=on", "Docker network", "n1")
		d.noStep(t)
	}
	a.untouched(t)

	here := newEngine(nodeContainer("theirs", "n1", node.ControlPlane, "172.18.0.2"),
		nodeContainer("theirs", "n2", node.Worker, "172.18.0.3"))
	d := existingDesk(t, a, &here, "SM_METALLB=on")
	s := d.open(t)
	if err := checkBeforeInstall(t.Context(), s, newCharts(d.Env, s.Provider())); err != nil {
		t.Fatal(err)
	}
	pool, err := s.Provider().AddressPool(t.Context())
	if err != nil || pool.Network != "kind" || pool.Size() == 0 {
		t.Errorf("%+v, %v", pool, err)
	}
	if step := tuneStep(s, "node-tuning"); step.ID == "" {
		t.Error("nodes that are all on this host are not tuned")
	}
}

// smallBundle holds an empty image for every reference that a lab needs.
func smallBundle(t *testing.T) string {
	t.Helper()
	refs, _, err := bundleImages(t.Context(), newDesk(t, nil, "SM_METALLB=off", "SM_ADDONS=none").Env)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bundle")
	writer, err := bundle.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, ref := range refs {
		image, err := mutate.Canonical(empty.Image)
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Add(t.Context(), ref, image, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Commit(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestExistingBundle: a bundle goes into nodes that are kind's containers on this host, and is refused for others.
func TestExistingBundle(t *testing.T) {
	setting := "SM_BUNDLE=" + smallBundle(t)
	a := newAPIServer(t)
	one := nodeContainer("theirs", "n1", node.ControlPlane, "172.18.0.2")
	some := newEngine(one)
	for name, d := range map[string]bed{
		"no Docker": existingDesk(t, a, nil, setting), "one node of two": existingDesk(t, a, &some, setting),
	} {
		refused(t, name, d.Install(t.Context()), problem.SettingInvalid, "SM_BUNDLE=", "nodes elsewhere",
			"Unset SM_BUNDLE")
		d.noStep(t)
	}
	a.record = map[string]string{"lab": "ambient"}
	refused(t, "apps", existingDesk(t, a, &some, setting).Apps(t.Context(), false), problem.SettingInvalid,
		"SM_BUNDLE=")
	guest := existingDesk(t, a, &some, setting)
	if s := guest.open(t); s.Bundle != nil || !problem.Is(s.Unloadable, problem.SettingInvalid) {
		t.Errorf("a status takes the bundle's images for those that run: %v", s.Unloadable)
	}
	a.untouched(t)

	all := newEngine(one, nodeContainer("theirs", "n2", node.Worker, "172.18.0.3"))
	d := existingDesk(t, a, &all, setting)
	s := d.open(t)
	c := newCharts(d.Env, s.Provider())
	if err := checkBeforeInstall(t.Context(), s, c); err != nil {
		t.Fatal(err)
	}
	refs, containers, err := toLoad(t.Context(), s, c)
	if err != nil || strings.Join(containers, " ") != "n1 n2" || len(refs) == 0 {
		t.Errorf("%v into %v, %v", refs, containers, err)
	}
	step := imagesStep(s, c, "images")
	if step.ID == "" {
		t.Fatal("no step loads the images")
	}
	asked := make(chan string, 2)
	all.Exec = func(container string, command []string) (string, string, int) {
		asked <- container + ": " + strings.Join(command, " ")
		return "REF TYPE DIGEST STATUS SIZE UNPACKED\n", "", 0
	}
	status, err := step.Check(t.Context())
	if want := fmt.Sprintf("%d of %d copies missing", 2*len(refs), 2*len(refs)); err != nil || status.Done ||
		!strings.Contains(status.Message, want) {
		t.Errorf("%+v, %v; want %q", status, err, want)
	}
	says(t, "what the nodes were asked", <-asked+"\n"+<-asked, "n1: ctr", "n2: ctr")
}

// TestExistingDeleteWithoutDocker: taking MetalLB back needs no addresses.
func TestExistingDeleteWithoutDocker(t *testing.T) {
	a := newAPIServer(t)
	d := existingDesk(t, a, nil, "SM_METALLB=on")
	err := addressPoolStep(d.open(t)).Undo(context.WithoutCancel(t.Context()))
	if problem.Is(err, problem.SettingInvalid) {
		t.Errorf("the addresses were computed to be forgotten: %v", err)
	}
}
