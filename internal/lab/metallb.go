package lab

import (
	"context"
	"sync"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/lb"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
)

// The three parts of MetalLB. Where it is no longer asked for they are removed in the opposite order: its own objects
// while its controller still runs, and the controller before its settings.
const (
	metalLBPart = "metallb"
	processPart = "metallb-process"
	poolPart    = "address-pool"
)

// removesMetalLB tells whether the plan removes MetalLB.
func removesMetalLB(s *session.Session) bool {
	return removes(s, metalLBPart, s.Config.MetalLB) || removes(s, poolPart, s.Config.MetalLB)
}

func metalLBStep(s *session.Session, needs ...string) engine.Step {
	if removesMetalLB(s) {
		needs = []string{poolPart, processPart}
	}
	return optional(s, metalLBPart, "MetalLB", s.Config.MetalLB, needs, func(ctx context.Context) (objects, error) {
		list, err := s.Upstream().MetalLB(ctx)
		upstream.AskSoon(list)
		return list, err
	})
}

func metalLBProcessStep(s *session.Session) engine.Step {
	const title = "MetalLB's controller, a process on this machine"
	switch {
	case installs(s, metalLBPart, s.Config.MetalLB):
		return s.ProcessStep(processPart, title, cluster.ProcessMetalLB, metalLBPart)
	case removesMetalLB(s):
		return s.StopStep(processPart, title+whyRemoved(s), cluster.ProcessMetalLB, poolPart)
	default:
		return engine.Step{}
	}
}

func addressPoolStep(s *session.Session) engine.Step {
	needs := []string{metalLBPart}
	if removesMetalLB(s) {
		needs = []string{"cluster"}
	}
	step := optional(
		s,
		poolPart,
		"Load-balancer addresses",
		s.Config.MetalLB,
		needs,
		func(ctx context.Context) (objects, error) {
			pool, err := addressPool(ctx, s)
			if err != nil && s.NoCluster() {
				return lb.Objects(lb.Pool{}), nil // the addresses come from a network that does not exist yet
			}
			if err != nil {
				return nil, err
			}
			network := "Docker network " + pool.Network
			if pool.Network == "" {
				network = "a subnet for documentation (RFC 5737), which is not routed"
			}
			engine.Progress(ctx, "addresses %v of %s", pool.Ranges, network)
			return lb.Objects(pool), nil
		},
	)
	if !removesMetalLB(s) {
		step = mountingCertificate(s, step)
	}
	planner, ok := s.Provider().(cluster.PoolPlanner)
	if !ok || !s.NoCluster() || step.Explain == nil {
		return step
	}
	explain := step.Explain
	step.Explain = func() []string {
		ctx, cancel := context.WithTimeout(context.Background(), s.Settings.ShortStepTimeout())
		defer cancel()
		if _, err := planner.PlannedPool(ctx); problem.Is(err, problem.ClusterNone) {
			return append(lb.Commands(cluster.KindNetwork(), poolPart+".yaml"), explain()...)
		}
		return explain()
	}
	return step
}

// mountingCertificate makes MetalLB's webhook, which checks the addresses, answer soon where they have to wait for it.
func mountingCertificate(s *session.Session, step engine.Step) engine.Step {
	do := step.Do
	if do == nil {
		return step
	}
	step.Do = func(ctx context.Context) error {
		client, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		during, done := context.WithCancel(ctx)
		var mounting sync.WaitGroup
		mounting.Go(func() { lb.MountCertificate(during, client.Kube()) })
		defer mounting.Wait()
		defer done()
		return do(ctx)
	}
	return step
}

// addressPool gives the load-balancer addresses; for a cluster that does not exist, those that it would get.
func addressPool(ctx context.Context, s *session.Session) (lb.Pool, error) {
	if planner, ok := s.Provider().(cluster.PoolPlanner); ok && s.NoCluster() {
		return planner.PlannedPool(ctx)
	}
	return s.Provider().AddressPool(ctx)
}

// checkAddresses refuses load-balancer addresses for nodes from whose network none can be taken.
func checkAddresses(ctx context.Context, s *session.Session) error {
	if !s.Config.MetalLB || !s.Info.Exists {
		return nil
	}
	if _, err := s.Provider().AddressPool(ctx); problem.Is(err, problem.SettingInvalid) {
		return err
	}
	return nil
}
