package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"

	corev1 "k8s.io/api/core/v1"

	"ambientlab/podrunner/internal/isolate"
	"ambientlab/podrunner/internal/kubelet"
	"ambientlab/podrunner/internal/network"
	"ambientlab/podrunner/internal/outside"
	"ambientlab/podrunner/internal/sandbox"
	"ambientlab/podrunner/internal/zds"
)

// init keeps the main goroutine on the program's first thread: the kernel ends the process inside when the thread that
// started it ends, and a thread that has entered a network namespace must not be the first one, by which the kernel
// names the whole process.
func init() { runtime.LockOSThread() }

// enter tells whether the program is where it can work: in namespaces of its own, unless every pod is simulated.
// Outside of them it starts itself inside, waits for that to end, and ends as it did.
func enter(simulate bool) (inside bool, err error) {
	if simulate {
		return true, nil
	}
	if isolate.Inside() {
		return true, isolate.Settle()
	}
	code, err := isolate.Run()
	if err == nil && code != 0 {
		os.Exit(code)
	}
	return false, err
}

// equip gives the kubelet what it runs pods with. The returned function gives it back.
func equip(ctx context.Context, k *kubelet.Kubelet) (release func(), err error) {
	if k.Config.Simulate {
		return func() {}, nil
	}
	shared, err := network.NewSwitch(k.Config.PodRange, k.Config.ServiceRange)
	if err != nil {
		return nil, err
	}
	folders := map[string]string{}
	for _, node := range k.Config.Nodes {
		folders[node.Name] = k.NodeFolder(node.Name)
	}
	proxies, err := zds.New(ctx, folders, k.Log)
	if err != nil {
		return nil, err
	}
	if err := outside.Serve(ctx, k.Config.Outside, shared, k.Log); err != nil {
		return nil, err
	}
	k.Runtime, k.Proxies = pods{shared, k.Config.ServiceRange}, proxies
	balancer := &outside.Balancer{
		Client:    k.Client,
		Network:   shared,
		First:     k.Config.HostPort,
		Log:       k.Log,
		Endpoints: k.Endpoints,
	}
	published := map[string]bool{}
	k.Changed = func(ctx context.Context, services []*corev1.Service) {
		balancer.Sync(ctx, services)
		publish(ctx, k, published, services, shared.Address())
	}
	return shared.Close, nil
}

// publish makes the EndpointSlices of Services whose endpoint is outside of pods, each once.
func publish(
	ctx context.Context,
	k *kubelet.Kubelet,
	published map[string]bool,
	services []*corev1.Service,
	address netip.Addr,
) {
	for _, service := range services {
		if published[string(service.UID)] {
			continue
		}
		if err := outside.Publish(ctx, k.Client, k.Config.Outside, address.String(), service); err != nil {
			k.Log.Warn("publishing an endpoint failed", "error", err)
			continue
		}
		published[string(service.UID)] = true
	}
}

// pods makes the sandboxes of pods on a network.
type pods struct {
	network  *network.Switch
	services netip.Prefix
}

// NewSandbox implements kubelet.Runtime.
func (p pods) NewSandbox(uid, hostname, dir string, address netip.Addr) (kubelet.Sandbox, error) {
	made, err := sandbox.New(uid, hostname, dir, address, p.network, p.services)
	if err != nil {
		return nil, err
	}
	return pod{made}, nil
}

// DialProbe implements kubelet.Runtime.
func (p pods) DialProbe(ctx context.Context, address string) (net.Conn, error) {
	return p.network.DialProbe(ctx, address)
}

// pod is a sandbox as the kubelet uses it.
type pod struct{ *sandbox.Sandbox }

// Start implements kubelet.Sandbox.
func (p pod) Start(command sandbox.Command) (kubelet.Process, error) {
	process, err := p.Sandbox.Start(command)
	if err != nil {
		return nil, err
	}
	return process, nil
}
