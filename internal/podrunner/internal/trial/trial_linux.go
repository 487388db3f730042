// Package trial tries what running pods needs from the system, in the namespaces in which pods would run.
package trial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"ambientlab/podrunner/internal/config"
	"ambientlab/podrunner/internal/network"
	"ambientlab/podrunner/internal/sandbox"
)

// Result is the first step that failed, and its error.
type Result struct {
	Step  string `json:"step"`
	Error string `json:"error"`
}

const limit = 5 * time.Second

// Run makes a network of two pods, sends a request from one to the other by a Service's address, and starts a program
// in a root of its own.
func Run() Result {
	dir, err := os.MkdirTemp("", "podrunner-check-")
	if err != nil {
		return failed("folder", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	pods, services := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")
	shared, err := network.NewSwitch(pods, services)
	if err != nil {
		return failed("bridge", err)
	}
	defer shared.Close()
	var made []*sandbox.Sandbox
	for i, address := range []string{"10.244.0.2", "10.244.0.3"} {
		uid := fmt.Sprintf("trial%d", i)
		pod, err := sandbox.New(uid, uid, dir+"/"+uid, netip.MustParseAddr(address), shared, services)
		if err != nil {
			return failed("pod network", err)
		}
		made = append(made, pod)
	}
	if err := made[1].Redirect(); err != nil {
		return failed("netfilter rules", err)
	}
	service := network.Service{
		Address:   netip.MustParseAddrPort("10.96.0.2:80"),
		Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.3:8080")},
	}
	if err := made[0].SetServices([]network.Service{service}); err != nil {
		return failed("netfilter rules", err)
	}
	if err := send(made); err != nil {
		return failed("connection between pods", err)
	}
	if err := start(made[0]); err != nil {
		return failed("root of a container", err)
	}
	for _, pod := range made {
		err = errors.Join(err, pod.Close())
	}
	if err != nil {
		return failed("clean-up", err)
	}
	return Result{}
}

func failed(step string, err error) Result { return Result{step, err.Error()} }

// send connects from the first pod to the Service. The second pod is redirected as in the mesh, so the connection
// arrives at the node proxy's port.
func send(pods []*sandbox.Sandbox) error {
	listener, err := pods[1].Listen(":15006")
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	accepted := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			_, err = io.WriteString(conn, "x")
			err = errors.Join(err, conn.Close())
		}
		accepted <- err
	}()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := pods[0].DialAddress(ctx, "10.96.0.2:80")
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return err
	}
	return <-accepted
}

// start runs this program in a container's root, as a container's program would be run.
func start(pod *sandbox.Sandbox) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	root := sandbox.Root{
		Image: config.Image{Libraries: true, Files: []config.File{{Path: "/bin/podrunner", Source: self}}},
	}
	if err := pod.MakeRoot("check", root); err != nil {
		return err
	}
	process, err := pod.Start(
		sandbox.Command{
			Container: "check",
			Args:      []string{"/bin/podrunner", "nothing"},
			Stdout:    io.Discard,
			Stderr:    io.Discard,
		},
	)
	if err != nil {
		return err
	}
	if code, _ := process.Exit(); code != 0 {
		return fmt.Errorf("a program in it ended with exit code %d", code)
	}
	return nil
}
