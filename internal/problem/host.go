package problem

// The machine the lab runs on: Docker, kernel limits, ports, tools.
var (
	DockerNotRunning = Kind{
		ID: "LAB-DOCKER-NOT-RUNNING", Layer: LayerHost, Number: 0,
		Title: "no Docker engine answers",
		Advice: []string{
			"Start Docker (Docker Desktop, or `sudo systemctl start docker`), then run the target again.",
			"If the engine is elsewhere, set DOCKER_HOST or choose a context with `docker context use`.",
			"To use a cluster you already have, set INSTALL_KIND=n.",
			"To do without Docker, set SM_PROVIDER=embedded: the real control plane as processes on this machine; pods are simulated.",
		},
	}
	DockerPermission = Kind{
		ID: "LAB-DOCKER-PERMISSION", Layer: LayerHost, Number: 1,
		Title: "the Docker engine refuses this user",
		Advice: []string{
			"Add yourself to the docker group (`sudo usermod -aG docker $USER`) and log in again.",
		},
	}
	HostLimits = Kind{
		ID: "LAB-HOST-LIMITS", Layer: LayerHost, Number: 2,
		Title: "a limit of the host's kernel is too low for the lab",
		Advice: []string{
			"Raise it as root on the Docker host: `sysctl -w fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=1048576`.",
		},
	}
	HostResources = Kind{
		ID: "LAB-HOST-RESOURCES", Layer: LayerHost, Number: 3,
		Title:  "the host has too little memory, disk or CPU for the lab",
		Advice: []string{"Free some, or give the Docker machine more, then run the target again."},
	}
	PortInUse = Kind{
		ID: "LAB-PORT-IN-USE", Layer: LayerHost, Number: 4,
		Title:  "a local port is already taken",
		Advice: []string{"Stop the program that holds the port, or choose another port."},
	}
	ToolMissing = Kind{
		ID: "LAB-TOOL-MISSING", Layer: LayerHost, Number: 5,
		Title:  "a program that the lab needs is not installed",
		Advice: []string{"Install the program named above and make sure it is on PATH."},
	}
	HostUnsupported = Kind{
		ID: "LAB-HOST-UNSUPPORTED", Layer: LayerHost, Number: 6,
		Title:  "the host lacks something that cannot be worked around",
		Advice: []string{"Run the lab on a host that has it; the README lists the prerequisites."},
	}
)

func hostKinds() []Kind {
	return []Kind{DockerNotRunning, DockerPermission, HostLimits, HostResources, PortInUse, ToolMissing, HostUnsupported}
}
