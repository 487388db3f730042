package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Create starts what does not run and builds what is not built; if all of it runs, it changes nothing. A lab that it
// began and
// cannot finish it removes.
func (e *Embedded) Create(ctx context.Context) (err error) {
	if err := e.kubeconfig().Check(ctx, e.ContextName()); err != nil {
		return err
	}
	// Building takes minutes the first time, so it comes before anything that a failure would have to take back, and
	// before the lock: no other run has to wait for it.
	programs, paths, choice, err := e.buildAll(ctx)
	if err != nil {
		return err
	}
	unlock, err := e.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := e.load()
	if unreadable(err) {
		return fmt.Errorf("looking at the embedded control plane: %w", err)
	}
	if exists(e.dir) && (err != nil || !s.Complete) {
		engine.Progress(ctx, "removing what an unfinished creation left")
		if err := e.remove(ctx); err != nil {
			return err
		}
		s = nil
	}
	if s != nil && !exists(e.pki(podRunner+".crt")) {
		return problem.New(problem.NotReady, nil,
			"embedded cluster %q was created by a version of the lab without a pod runner", e.opts.Name).
			With("Delete it with `mage sm:delete`, then run `mage sm:install`.")
	}
	fresh := !exists(e.dir)
	if fresh {
		defer func() {
			if err != nil {
				clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
				defer cancel()
				err = errors.Join(err, e.remove(clean))
			}
		}()
		if s, err = e.prepare(choice); err != nil {
			return err
		}
	}
	if err := e.bring(ctx, s, programs, paths); err != nil {
		return err
	}
	s.Complete = true
	if err := e.save(s); err != nil {
		return err
	}
	if err := e.restartWorkloads(ctx, s); err != nil {
		return err
	}
	return e.link(ctx, s)
}

// toStart are the components that may have to be started: the base ones, and the workloads that were started before or
// will be.
func (e *Embedded) toStart() []string {
	components := baseComponents()
	for _, w := range workloads() {
		if exists(e.recordFile(w.component)) || slices.Contains(e.opts.Later, w.component) {
			components = append(components, w.component)
		}
	}
	return components
}

const cleanLimit = 20 * time.Second

// packets is the choice whether pods run, and why they do not.
type packets struct {
	on  bool
	why string
}

// buildAll builds every program that may be needed, after the choice whether pods run: without pods that run, their
// programs are not built.
func (e *Embedded) buildAll(ctx context.Context) (Programs, map[string]string, packets, error) {
	programs, err := e.open(ctx)
	if err != nil {
		return nil, nil, packets{}, err
	}
	choice, err := e.chosen(ctx, programs)
	if err != nil {
		return nil, nil, choice, err
	}
	components := e.toStart()
	names := programsOf(components)
	if choice.on {
		more, err := e.podPrograms(programs)
		if err != nil {
			return nil, nil, choice, err
		}
		names = append(names, more...)
	}
	built, err := programs.Binaries(ctx, names)
	if err != nil {
		return nil, nil, choice, e.notBuilt(ctx, err)
	}
	return programs, pathsOf(components, built), choice, nil
}

// chosen is the choice of a lab that exists, or the one for a new lab. It is made once: what is installed depends on
// it.
func (e *Embedded) chosen(ctx context.Context, programs Programs) (choice packets, err error) {
	s, err := e.load()
	if err == nil && s.Complete {
		if e.opts.Packets == PacketsOn && !s.Packets || e.opts.Packets == PacketsOff && s.Packets {
			return choice, problem.New(problem.SettingConflict, nil, "the lab was not created with SM_PACKETS=%s",
				e.opts.Packets).
				With("Delete the lab with `mage sm:delete` and create it again, or leave SM_PACKETS unset.")
		}
		return packets{s.Packets, s.WhyNoPackets}, nil
	}
	choice.on, choice.why, err = e.choosePackets(ctx, programs)
	return choice, err
}

// open gives the source of programs.
func (e *Embedded) open(ctx context.Context) (Programs, error) {
	programs, err := e.opts.Programs(func(program, message string) { engine.Progress(ctx, "%s: %s", program, message) })
	if err != nil {
		return nil, problem.New(problem.ManifestUnavailable, err,
			"the programs of the embedded control plane are built from the lab's Go modules")
	}
	return programs, nil
}

// notBuilt makes a problem of an error of a build, unless ctx has ended it.
func (e *Embedded) notBuilt(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return problem.New(problem.BuildFailed, err, "a program of the embedded control plane")
}

func programsOf(components []string) []string {
	names := make([]string, 0, len(components))
	for _, component := range components {
		names = append(names, program(component))
	}
	return names
}

func pathsOf(components []string, built map[string]string) map[string]string {
	paths := map[string]string{}
	for _, component := range components {
		paths[component] = built[program(component)]
	}
	return paths
}

// build gives the paths of components' programs.
func (e *Embedded) build(ctx context.Context, components []string) (Programs, map[string]string, error) {
	programs, err := e.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	built, err := programs.Binaries(ctx, programsOf(components))
	if err != nil {
		return nil, nil, e.notBuilt(ctx, err)
	}
	return programs, pathsOf(components, built), nil
}

// prepare makes the folder, the certificates and the choice of ports of a new lab.
func (e *Embedded) prepare(choice packets) (*state, error) {
	for _, dir := range []string{"", "logs", "run", "tmp", "etcd"} {
		if err := os.MkdirAll(filepath.Join(e.dir, dir), 0o700); err != nil {
			return nil, fmt.Errorf("making the lab's folder: %w", err)
		}
	}
	ports, claims, err := freePorts(portNames())
	e.claims = append(e.claims, claims...)
	if err != nil {
		return nil, problem.New(problem.PortInUse, err, "the embedded control plane needs %d free ports",
			len(portNames()))
	}
	s := &state{
		Name: e.opts.Name, Created: time.Now().UTC(), Workers: e.opts.Workers, Ports: ports,
		Packets: choice.on, WhyNoPackets: choice.why, Ztunnel: e.opts.Ztunnel,
	}
	if err := e.save(s); err != nil {
		return nil, err
	}
	return s, e.makePKI(s.Created)
}

// bring starts the base components that do not run, each when those that it needs are ready.
func (e *Embedded) bring(ctx context.Context, s *state, programs Programs, paths map[string]string) error {
	if err := e.movePorts(ctx, s); err != nil {
		return err
	}
	if err := e.writeKubeconfigs(s); err != nil {
		return err
	}
	for _, addon := range e.opts.Addons {
		if !slices.Contains(s.Addons, addon) {
			s.Addons = append(s.Addons, addon)
		}
	}
	if err := e.save(s); err != nil {
		return err
	}
	// The pod runner reads it, and finding the files of images takes a moment in which others start.
	configuring, cctx := errgroup.WithContext(ctx)
	configuring.Go(func() error { return e.writeRunnerConfig(cctx, s, programs) })
	defer func() { _ = configuring.Wait() }()
	ensure := func(ctx context.Context, name string) error {
		c := e.component(s, name, paths[name])
		return e.ensure(ctx, c.spec, c.ready)
	}
	for _, name := range []string{etcd, apiServer} {
		if err := ensure(ctx, name); err != nil {
			return err
		}
	}
	if s.Complete {
		if err := e.nudge(ctx); err != nil {
			return err
		}
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, name := range []string{controllerManager, scheduler} {
		group.Go(func() error { return ensure(gctx, name) })
	}
	group.Go(func() error {
		if err := configuring.Wait(); err != nil {
			return err
		}
		return ensure(gctx, podRunner)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return e.makeNodes(ctx, s)
}

// movePorts chooses other ports where, since the last start, another program took one that a stopped component had.
func (e *Embedded) movePorts(ctx context.Context, s *state) error {
	users := map[string]string{
		portEtcd: etcd, portEtcdPeer: etcd, portAPI: apiServer,
		portIstiodHTTP: istiod, portIstiodXDS: istiod, portIstiodHook: istiod, portIstiodStat: istiod,
		portMetalStat: metallb, portMetalProbe: metallb, portKubelet: podRunner, portGateway: podRunner,
	}
	var lost []string
	for port, user := range users {
		known, err := e.record(user)
		if (err != nil || !known.alive()) && taken(s.Ports[port]) {
			lost = append(lost, port)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	engine.Progress(ctx, "choosing other ports: another program has taken those of %v", lost)
	others, claims, err := freePorts(lost)
	e.claims = append(e.claims, claims...)
	if err != nil {
		return problem.New(problem.PortInUse, err, "the embedded control plane needs %d free ports", len(lost))
	}
	for port, number := range others {
		s.Ports[port] = number
	}
	return e.save(s)
}

// link writes the lab's entry into the user's kubeconfig.
func (e *Embedded) link(ctx context.Context, s *state) error {
	entries, err := e.entries(s, e.ContextName(), admin)
	if err != nil {
		return err
	}
	path, err := e.kubeconfig().Link(ctx, entries, e.ContextName())
	if path != "" {
		engine.Changed(ctx,
			engine.Change{Object: "kubeconfig " + path, Action: engine.Update, Detail: "context " + e.ContextName()})
	}
	return err
}
