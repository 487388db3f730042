package problem

// The machine the lab runs on: Docker, kernel limits, ports, tools.
var (
	DockerNotRunning = Kind{
		ID: "LAB-DOCKER-NOT-RUNNING", Layer: LayerHost, Number: 0,
		Title: "no Docker engine answers",
		Advice: []string{
			"Start Docker (Docker Desktop, or `sudo systemctl start docker`), then run the target again.",
			"If Docker runs on another machine, set DOCKER_HOST or choose a context with `docker context use`.",
			"To use a cluster that you already have, set INSTALL_KIND=n.",
			"To run without Docker, set SM_PROVIDER=embedded: the control plane runs as processes on this machine, " +
				"and on Linux its pods too.",
		},
	}
	DockerPermission = Kind{
		ID: "LAB-DOCKER-PERMISSION", Layer: LayerHost, Number: 1,
		Title: "this user may not use the Docker engine",
		Advice: []string{
			"Add yourself to the docker group (`sudo usermod -aG docker $USER`) and log in again.",
		},
	}
	HostLimits = Kind{
		ID: "LAB-HOST-LIMITS", Layer: LayerHost, Number: 2,
		Title: "a kernel limit of the Docker host is too low for the lab",
		Advice: []string{
			"As root on the Docker host, run " +
				"`sysctl -w fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=1048576`.",
		},
	}
	HostResources = Kind{
		ID: "LAB-HOST-RESOURCES", Layer: LayerHost, Number: 3,
		Title:  "the Docker host has too little memory, disk space or CPU for the lab",
		Advice: []string{"Free some of it, or give the Docker machine more, then run the target again."},
	}
	PortInUse = Kind{
		ID: "LAB-PORT-IN-USE", Layer: LayerHost, Number: 4,
		Title:  "another program uses a local port that the lab needs",
		Advice: []string{"Stop the other program, or choose another port."},
	}
	ToolMissing = Kind{
		ID: "LAB-TOOL-MISSING", Layer: LayerHost, Number: 5,
		Title:  "a program that the lab needs is not installed",
		Advice: []string{"Install the program named above and check that it is on PATH."},
	}
	HostUnsupported = Kind{
		ID: "LAB-HOST-UNSUPPORTED", Layer: LayerHost, Number: 6,
		Title:  "the host does not meet a requirement of the lab",
		Advice: []string{"Run the lab on a host that meets the requirement named above."},
	}
)

func hostKinds() []Kind {
	return []Kind{
		DockerNotRunning, DockerPermission, HostLimits, HostResources, PortInUse, ToolMissing,
		HostUnsupported,
	}
}
