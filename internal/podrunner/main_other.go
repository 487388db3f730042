//go:build !linux

package main

import (
	"context"
	"errors"

	"ambientlab/podrunner/internal/kubelet"
)

// enter: there are no namespaces on this system.
func enter(simulate bool) (inside bool, err error) {
	if !simulate {
		return false, errors.New("pods can be run on Linux only; set simulate in the configuration")
	}
	return true, nil
}

func equip(context.Context, *kubelet.Kubelet) (release func(), err error) { return func() {}, nil }

func check() error { return errors.New("pods can be run on Linux only") }
