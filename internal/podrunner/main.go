// Command podrunner is the kubelet of a lab whose control plane is embedded: it runs the lab's pods as processes of
// this machine, in network namespaces that a user may make, and reports those that it cannot run as simulated.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"ambientlab/podrunner/internal/config"
	"ambientlab/podrunner/internal/kubelet"
)

const usage = `usage: podrunner run CONFIG   runs the pods, as the file CONFIG says
       podrunner check        tries what running pods needs, and says what fails`

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "run":
		return run(args[1])
	case len(args) == 1 && args[0] == "check":
		return check()
	case len(args) == 1 && args[0] == "nothing": // what check runs in a container
		return nil
	}
	return fmt.Errorf("%s", usage)
}

// run is the runner itself.
func run(path string) error {
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	if inside, err := enter(c.Simulate); !inside {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	klog.SetSlogLogger(log)
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	// The kernel names mounts by their real path.
	if c.Dir, err = filepath.EvalSymlinks(c.Dir); err != nil {
		return err
	}
	rest, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	rest.QPS = -1 // the API server has flow control of its own
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	k := &kubelet.Kubelet{Config: c, Client: client, Log: log}
	release, err := equip(ctx, k)
	if err != nil {
		return err
	}
	defer release()
	failed := make(chan error, 1)
	go func() { failed <- k.ServeAPI(ctx) }()
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	log.Info("the pod runner is started", "nodes", len(c.Nodes), "simulate", c.Simulate)
	select {
	case err := <-failed:
		if ctx.Err() == nil {
			return err
		}
		return <-ended
	case err := <-ended:
		return err
	}
}
