package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/moby/moby/client"
	kindexec "sigs.k8s.io/kind/pkg/exec"

	"ambientlab/internal/docker"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// cause recognises a known reason in what kind and the nodes said.
type cause struct {
	pattern *regexp.Regexp
	kind    problem.Kind
	// seen says what it means; advice comes before the kind's own.
	seen   string
	advice []string
}

// known makes a cause. The pattern does not distinguish upper case from lower case.
func known(pattern string, kind problem.Kind, seen string, advice ...string) cause {
	return cause{regexp.MustCompile("(?i)" + pattern), kind, seen, advice}
}

// causes lists the known ones, the most telling first: a full disk also makes the kubelet unhealthy, and the kubelet's
// words alone would mislead.
func causes() []cause {
	return []cause{
		known(`no space left on device|disk quota exceeded`,
			problem.HostResources, "the Docker host's disk is full",
			"See what fills it with `docker system df`; `docker system prune` frees what is unused."),
		known(`too many open files|inotify_(init|add_watch)|inotify (instances|watch)|`+
			`failed to create (inotify object|fsnotify watcher)`,
			problem.HostLimits, "the host's inotify limits are used up, so a node's systemd or kubelet cannot start"),
		known(`(kubelet is configured to not run|unsupported|cannot run).{0,60}cgroup v1|failCgroupV1`,
			problem.HostUnsupported, "the host runs cgroup v1, which this kubelet refuses",
			"Boot the host with cgroup v2 (systemd.unified_cgroup_hierarchy=1).",
			"Or let the kubelet accept it: `failCgroupV1: false` in a KubeletConfiguration patch of the kind "+
				"configuration."),
		known(`port is already allocated|address already in use|ports are not available`,
			problem.PortInUse, "a host port that the kind configuration maps is taken"),
		known(`address pools have been fully subnetted|available,? non-overlapping ipv4 address pool`,
			problem.HostResources, "Docker has no subnet left for another network",
			"Remove unused networks with `docker network prune`."),
		known(`permission denied while trying to connect to the docker`,
			problem.DockerPermission, "this user has no permission to use the Docker engine"),
		known(`cannot connect to the docker daemon|error during connect`,
			problem.DockerNotRunning, "the docker command cannot reach the engine"),
		known(`unable to apply caps|operation not permitted|rootless provider requires`,
			problem.HostUnsupported, "the Docker engine cannot run privileged containers, which kind's nodes are"),
		known(`failed to pull image|pull access denied|manifest unknown`,
			problem.RegistryUnreachable, "an image that kind needs is not in Docker and cannot be pulled"),
		known(`container name .* is already in use`,
			problem.ClusterCreateFailed, "a container with the name of one of the nodes exists",
			"Remove it with `docker rm`, or choose another name with SM_CLUSTER."),
		known(`unknown field|is not a valid|invalid configuration for node|unable to decode|unknown apiVersion`,
			problem.SettingInvalid, "kind does not accept its configuration",
			"Correct the file that SM_KIND_CONFIG names."),
		known(`OOMKilled|out of memory|cannot allocate memory`,
			problem.HostResources, "the Docker host ran out of memory"),
	}
}

// explainCreate turns kind's failure into a problem with the output of the command that failed, the first known cause
// in it, and else what the nodes' own logs say. The containers still exist.
func (k *Kind) explainCreate(ctx context.Context, err error) error {
	output := ""
	if failed := kindexec.RunErrorForError(err); failed != nil {
		output = string(failed.Output)
	}
	text := err.Error() + "\n" + output
	for _, c := range causes() {
		if c.pattern.MatchString(text) {
			return problem.New(c.kind, withOutput(err, output), "%s", c.seen).With(c.advice...)
		}
	}
	nodes := k.nodeLogs(ctx)
	for _, c := range causes() {
		if line := c.pattern.FindString(nodes); line != "" {
			return problem.New(c.kind, withOutput(err, lineOf(nodes, line)), "%s", c.seen).With(c.advice...)
		}
	}
	return problem.New(
		problem.ClusterCreateFailed,
		errors.Join(withOutput(err, output), withOutput(errors.New("the nodes' logs end with"), nodes)),
		"kind could not create cluster %s", k.opts.Name,
	)
}

// outputLines is how much of a command's output is shown; its end tells most.
const outputLines = 20

func withOutput(err error, output string) error {
	output = tail(output, outputLines)
	if output == "" {
		return err
	}
	return fmt.Errorf("%w\n%s", err, output)
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.TrimSpace(strings.Join(all, "\n"))
}

// lineOf gives the line of text that part begins in.
func lineOf(text, part string) string {
	at := strings.Index(text, part)
	start := strings.LastIndexByte(text[:at], '\n') + 1
	line, _, _ := strings.Cut(text[start:], "\n")
	return strings.TrimSpace(line)
}

// nodeLogs gathers the end of the kubelet's log, or that of a container that has none. It is best effort: what cannot
// be read is left out.
func (k *Kind) nodeLogs(ctx context.Context) string {
	nodes, err := k.nodes(ctx)
	if err != nil {
		return ""
	}
	var all strings.Builder
	for _, n := range nodes {
		text := ""
		if n.Running && n.Role != node.LoadBalancer {
			text, _ = docker.Exec(
				ctx, k.opts.Docker, n.ContainerID, "journalctl", "--no-pager", "-o", "cat", "-n", "30", "-u", "kubelet",
			)
		}
		if strings.TrimSpace(text) == "" || strings.Contains(text, "-- No entries --") {
			text = k.containerLog(ctx, n)
		}
		if text = tail(text, outputLines); text != "" {
			fmt.Fprintf(&all, "%s:\n%s\n", n.Name, text)
		}
	}
	return all.String()
}

func (k *Kind) containerLog(ctx context.Context, n Node) string {
	logs, err := k.opts.Docker.ContainerLogs(
		ctx, n.ContainerID, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "30"},
	)
	if err != nil {
		return ""
	}
	defer func() { _ = logs.Close() }() // read to its end or given up
	var text bytes.Buffer
	// kind's nodes have a terminal, so the stream is plain text.
	if _, err := io.Copy(&text, io.LimitReader(logs, 1<<20)); err != nil {
		return ""
	}
	return text.String()
}
