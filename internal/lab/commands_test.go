package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/manifest"
	"ambientlab/internal/problem"
	"ambientlab/internal/source"
)

// program writes an executable shell script that takes the place of a command.
func program(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// runCommands runs a script of sm:plan -out, with the programs of a folder before those of the machine.
func runCommands(t *testing.T, script, programs string, environment ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "sh", script)
	command.Env = append(
		os.Environ(),
		append(environment, "PATH="+programs+string(os.PathListSeparator)+os.Getenv("PATH"))...)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// filesOf lists the files that the commands of a script name, each once, in order.
func filesOf(script string) []string {
	var files []string
	for _, match := range regexp.MustCompile(`(?m) (?:-f|--config) (\S+\.yaml)`).FindAllStringSubmatch(script, -1) {
		if !slices.Contains(files, match[1]) {
			files = append(files, match[1])
		}
	}
	return files
}

// TestCommandsWithoutDocker writes the commands of a whole lab where no Docker engine answers, and runs them with
// programs that only record what they are called with.
func TestCommandsWithoutDocker(t *testing.T) {
	b := newDesk(t, nil, "SM_PROVIDER=kind", "SM_CLUSTER=handmade")
	dir := filepath.Join(t.TempDir(), "new", "folder")
	if err := Plan("", dir)(t.Context(), b.Env); err != nil {
		t.Fatal(err)
	}
	says(t, "what sm:plan says", b.talk.String(), "LAB-DOCKER", "the preview is for a new cluster",
		"next: mage sm:install")
	raw, err := os.ReadFile(filepath.Join(dir, commandsFile))
	if err != nil {
		t.Fatal(err)
	}
	script := string(raw)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	written := []string{}
	for _, entry := range entries {
		if entry.Name() != commandsFile {
			written = append(written, entry.Name())
		}
	}
	files := filesOf(script)
	slices.Sort(files)
	if !slices.Equal(files, written) || len(files) < 15 {
		t.Errorf("the commands name\n%v\nand the folder holds\n%v", files, written)
	}
	for _, file := range filesOf(b.out.String()) {
		if !slices.Contains(files, file) {
			t.Errorf("sm:plan prints %s, which is not written", file)
		}
	}
	says(
		t,
		"the script",
		script,
		"docker.io/istio/pilot:",
		"kubectl -n istio-system rollout status --timeout=10m deployment/istiod",
	)
	kind, err := os.ReadFile(filepath.Join(dir, "kind.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	says(t, "kind.yaml", string(kind), "/etc/ambientlab/handmade/slot-0", "containerPort: 30042", "kindest/node:v")

	programs, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	program(t, programs, "kind", `echo "kind $*" >> "$LOG"; if [ "$1" = get ]; then echo n1; echo n2; fi`)
	program(t, programs, "kubectl", `echo "kubectl $*" >> "$LOG"`)
	program(
		t,
		programs,
		"docker",
		`echo "docker $*" >> "$LOG"; if [ "$1" = network ]; then echo fc00:f853::/64; echo 172.30.0.0/16; fi`,
	)
	runCommands(t, filepath.Join(dir, commandsFile), programs, "LOG="+log)
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	rest := string(calls)
	for _, want := range []string{
		"kind create cluster --name handmade --image kindest/node:",
		"kubectl --context kind-handmade wait --timeout=10m --for=condition=Ready node --all\n",
		"docker exec handmade-control-plane touch /etc/ambientlab/complete\n",
		"docker exec n2 sh -c test",
		"kubectl --context kind-handmade apply --server-side --field-manager=ambientlab --force-conflicts " +
			"-f metallb.yaml\n",
		"docker network inspect kind",
		"-f address-pool.yaml\n", "-f istio-base.yaml\n", "-f istiod.yaml\n", "-f ztunnel.yaml\n",
		"--field-manager=ambientlab-namespace -f namespace.yaml\n",
		"-f appb.yaml\n", "-f apps.yaml\n",
		"wait --timeout=10m --for=condition=Programmed gateways.gateway.networking.k8s.io/gateway\n",
		"-f waypoint.yaml\n", "--field-manager=ambientlab-enrol -f enrol.yaml\n", "-f fault.yaml\n", "-f authz.yaml\n",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("after what comes before it, the commands do not call %q:\n%s", want, calls)
		}
		rest = after
	}
	pool, err := os.ReadFile(filepath.Join(dir, "address-pool.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	says(t, "address-pool.yaml", string(pool), "172.30.255.240-172.30.255.254")

	refused(
		t,
		"a folder that is not empty",
		Plan("", dir)(t.Context(), b.Env),
		problem.SettingInvalid,
		"holds address-pool.yaml",
	)
	refused(
		t,
		"a file",
		Plan("", filepath.Join(dir, "kind.yaml"))(t.Context(), b.Env),
		problem.SettingInvalid,
		"kind.yaml",
	)
}

// TestCommandsWithDocker takes the addresses of a new lab from its Docker network, next to those of another lab.
func TestCommandsWithDocker(t *testing.T) {
	engine := ownNode("other")
	b := newDesk(t, &engine, "SM_PROVIDER=kind", "SM_CLUSTER=second", "SM_NAMESPACE=team")
	dir := t.TempDir()
	if err := Plan("install", dir)(t.Context(), b.Env); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"kind.yaml": "/etc/ambientlab/second/slot-1", "address-pool.yaml": "172.18.255.224-172.18.255.239",
		"namespace.yaml": "lab.opssec.in/created",
	} {
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		says(t, file, string(content), want)
	}
	again := newDesk(t, &engine, "SM_PROVIDER=kind", "SM_CLUSTER=other")
	s := again.open(t)
	existing, err := planOf(s, newCharts(again.Env, s.Provider()), "install").Steps[0].Files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	says(t, "kind.yaml of a lab that exists", string(existing["kind.yaml"]), "/etc/ambientlab/other/slot-0")
	script, err := os.ReadFile(filepath.Join(dir, commandsFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(script), "docker network inspect") {
		t.Errorf("the addresses are known, and the commands look for them:\n%s", script)
	}
}

// TestEmbeddedCommands applies the files of a whole lab with kubectl to an API server on which nothing was installed;
// the targets then find no object to change. Only the processes and what istiod makes are left to them.
func TestEmbeddedCommands(t *testing.T) {
	b := newBench(t, "commands")
	if err := b.provider().Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	builder, err := source.New(source.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kubectl, err := builder.Binary(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	programs := t.TempDir()
	if err := os.Symlink(kubectl, filepath.Join(programs, "kubectl")); err != nil {
		t.Fatal(err)
	}
	install := filepath.Join(t.TempDir(), "install")
	planner := b.lab()
	if err := Plan("install", install)(t.Context(), planner.Env); err != nil {
		t.Fatal(err)
	}
	runCommands(t, filepath.Join(install, commandsFile), programs, "KUBECONFIG="+b.env["KUBECONFIG"])
	b.unchanged("install")
	b.do("install", b.Install)

	for _, l := range lesson.Course() {
		dir := filepath.Join(t.TempDir(), l.Name)
		if err := Plan(l.Name, dir)(t.Context(), b.lab().Env); err != nil {
			t.Fatal(err)
		}
		runCommands(t, filepath.Join(dir, commandsFile), programs, "KUBECONFIG="+b.env["KUBECONFIG"])
		b.unchanged(l.Name)
	}
}

// unchanged wants the plan of a target to change no object.
func (b *bench) unchanged(target string) {
	b.t.Helper()
	fresh := b.lab()
	s := fresh.open(b.t)
	previews, err := s.Preview(b.t.Context(), planOf(s, newCharts(fresh.Env, s.Provider()), target))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range previews {
		if p.Err != nil || p.Blocked {
			b.t.Errorf("%s: %s: %v %s", target, p.Title, p.Err, p.Status.Message)
		}
		for _, change := range p.Changes {
			if change.Action != engine.Run {
				b.t.Errorf("%s: %s would still change: %+v", target, p.Title, change)
			}
		}
	}
}

// TestFilesAreApplicable decodes each file, since the commands hand them to kubectl as they are.
func TestFilesAreApplicable(t *testing.T) {
	b := newDesk(t, nil, "SM_PROVIDER=kind")
	dir := t.TempDir()
	if err := Plan("", dir)(t.Context(), b.Env); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, path := range paths {
		if filepath.Base(path) == "kind.yaml" {
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := manifest.Decode(raw)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if separate := bytes.Count(raw, []byte("---\napiVersion:")); len(decoded) != separate || len(decoded) == 0 {
			t.Errorf("%s: %d objects, %d documents", path, len(decoded), separate)
		}
		if slices.ContainsFunc(
			decoded,
			func(object *unstructured.Unstructured) bool { return object.GetName() == "" },
		) {
			t.Errorf("%s holds an object without a name", path)
		}
		count += len(decoded)
	}
	if count < 100 {
		t.Errorf("only %d objects are written", count)
	}
}
