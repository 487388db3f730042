package problem

// The machine the lab runs on: Docker, kernel limits, ports, tools.
var (
	DockerNotRunning = LayerHost.kind("LAB-DOCKER-NOT-RUNNING", 0, "no Docker engine answers",
		"Start Docker (Docker Desktop, or `sudo systemctl start docker`), then run the target again.",
		"If Docker runs on another machine, set DOCKER_HOST or choose a context with `docker context use`.",
		"To use a cluster that you already have, set INSTALL_KIND=n.",
		"To run without Docker, set SM_PROVIDER=embedded: the control plane runs as processes on this machine, and "+
			"on Linux its pods too.")
	DockerPermission = LayerHost.kind("LAB-DOCKER-PERMISSION", 1, "this user may not use the Docker engine",
		"Add yourself to the docker group (`sudo usermod -aG docker $USER`) and log in again.")
	HostLimits = LayerHost.kind("LAB-HOST-LIMITS", 2, "a kernel limit of the Docker host is too low for the lab",
		"As root on the Docker host, run `sysctl -w fs.inotify.max_user_instances=1024 "+
			"fs.inotify.max_user_watches=1048576`.")
	HostResources = LayerHost.kind("LAB-HOST-RESOURCES", 3,
		"the Docker host has too little memory, disk space or CPU for the lab",
		"Free some of it, or give the Docker machine more, then run the target again.")
	PortInUse = LayerHost.kind("LAB-PORT-IN-USE", 4, "another program uses a local port that the lab needs",
		"Stop the other program, or choose another port.")
	ToolMissing = LayerHost.kind("LAB-TOOL-MISSING", 5, "a program that the lab needs is not installed",
		"Install the program named above and check that it is on PATH.")
	HostUnsupported = LayerHost.kind("LAB-HOST-UNSUPPORTED", 6, "the host does not meet a requirement of the lab",
		"Run the lab on a host that meets the requirement named above.")
)

func hostKinds() []Kind {
	return []Kind{
		DockerNotRunning, DockerPermission, HostLimits, HostResources, PortInUse, ToolMissing,
		HostUnsupported,
	}
}
