// Package sandbox runs the processes of a pod: in the pod's network namespace, each container in a root of its own and
// in a PID namespace of its own. It keeps programs apart so that each finds the files that its image would have; it
// does not keep them from reading the user's files, and is no protection.
package sandbox

import (
	"io"

	"ambientlab/podrunner/internal/config"
)

// Mount is a folder or file of this machine at a path in a container.
type Mount struct {
	Source, Path string
	ReadOnly     bool
}

// Root describes the root of a container.
type Root struct {
	Image  config.Image
	Mounts []Mount
	// Files are written into the root, by their path.
	Files map[string]string
}

// Command is a program to run in a container.
type Command struct {
	Container string
	// Args are the program, by its path or its name in PATH, and its arguments.
	Args []string
	Env  []string
	// Dir is the working directory in the container; empty means /.
	Dir            string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal says that Stdin is a terminal, which becomes the program's controlling terminal.
	Terminal bool
}
