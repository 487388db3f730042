package githubaction

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const folder = "../../.github/actions/lab"

// action is an action's metadata, as far as the tests need it.
type action struct {
	Inputs map[string]struct {
		Description string `json:"description"`
		Default     string `json:"default"`
	} `json:"inputs"`
	Outputs map[string]struct {
		Description string `json:"description"`
		Value       string `json:"value"`
	} `json:"outputs"`
	Runs struct {
		Steps []struct {
			ID    string            `json:"id"`
			Name  string            `json:"name"`
			If    string            `json:"if"`
			Uses  string            `json:"uses"`
			Run   string            `json:"run"`
			Shell string            `json:"shell"`
			Env   map[string]string `json:"env"`
			With  map[string]string `json:"with"`
		} `json:"steps"`
		Main, Post string
	} `json:"runs"`
}

func load(t *testing.T, path string) action {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(folder, path))
	if err != nil {
		t.Fatal(err)
	}
	var a action
	if err := yaml.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// runner is a runner of GitHub in a folder of the test's own. Its go and its lab write down how they were called.
type runner struct {
	t      *testing.T
	dir    string
	inputs map[string]string
	// env is what steps have written to GITHUB_ENV, outputs what they have written to GITHUB_OUTPUT, by the step's ID.
	env     map[string]string
	outputs map[string]map[string]string
}

// program writes down its arguments and the settings that it finds, and ends with the code in LAB_FAKE_EXIT. A go that
// is to compile makes the lab.
const program = `#!/bin/sh
{ echo "called: $(basename "$0") $*"; env | grep -E '^(SM_|KUBECONFIG=)' | sort; } >>"$LAB_FAKE_LOG"
case "$*" in
"env GOVERSION") echo go1.26.0 ;;
"tool mage -compile "*) cp "$0" "$4" ;;
"sm:run "*" -- bash "*) while [ "$1" != -- ]; do shift; done; shift; exec "$@" ;;
*) exit "${LAB_FAKE_EXIT:-0}" ;;
esac
`

func newRunner(t *testing.T, inputs map[string]string) *runner {
	t.Helper()
	r := &runner{
		t: t, dir: t.TempDir(), inputs: map[string]string{}, env: map[string]string{},
		outputs: map[string]map[string]string{},
	}
	for name, input := range load(t, "action.yml").Inputs {
		r.inputs[name] = input.Default
	}
	maps.Copy(r.inputs, inputs)
	for _, dir := range []string{"bin", "temp"} {
		if err := os.Mkdir(filepath.Join(r.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "bin", "go"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	return r
}

var expression = regexp.MustCompile(`\$\{\{ *(inputs|steps)\.([a-z-]+)(?:\.outputs\.([a-z-]+))? *\}\}`)

// value evaluates the expressions in a value of the action.
func (r *runner) value(text string) string {
	return expression.ReplaceAllStringFunc(text, func(match string) string {
		parts := expression.FindStringSubmatch(match)
		if parts[1] == "inputs" {
			value, known := r.inputs[parts[2]]
			if !known {
				r.t.Errorf("%s is no input", match)
			}
			return value
		}
		value, known := r.outputs[parts[2]][parts[3]]
		if !known {
			r.t.Errorf("%s is no output of a step before", match)
		}
		return value
	})
}

// command runs one command with the environment of a runner, and gives its exit code.
func (r *runner) command(env map[string]string, name string, args ...string) int {
	r.t.Helper()
	at, err := filepath.Abs(folder)
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]string{
		"PATH": filepath.Join(r.dir, "bin") + ":" + os.Getenv("PATH"), "HOME": r.dir, "CI": "true",
		"GITHUB_ACTIONS": "true", "GITHUB_ACTION_PATH": at, "GITHUB_RUN_ID": "4711", "GITHUB_RUN_ATTEMPT": "1",
		"GITHUB_JOB": "e2e", "RUNNER_NAME": "runner-1", "RUNNER_TEMP": filepath.Join(r.dir, "temp"),
		"LAB_FAKE_LOG": filepath.Join(r.dir, "log"), "LAB_FAKE_EXIT": os.Getenv("LAB_FAKE_EXIT"),
	}
	files := []string{"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STATE", "GITHUB_STEP_SUMMARY"}
	for _, file := range files {
		all[file] = filepath.Join(r.dir, file)
	}
	maps.Copy(all, r.env)
	maps.Copy(all, env)
	command := exec.Command(name, args...)
	command.Dir = r.dir
	for name, value := range all {
		command.Env = append(command.Env, name+"="+value)
	}
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	r.t.Logf("%s %v: exit code %d\n%s", name, args, command.ProcessState.ExitCode(), out)
	return command.ProcessState.ExitCode()
}

// pairs reads NAME=value lines that a command has written, and empties the file.
func (r *runner) pairs(file string) map[string]string {
	path := filepath.Join(r.dir, file)
	raw, _ := os.ReadFile(path) // a step need not write any
	_ = os.Remove(path)
	found := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			r.t.Errorf("%s holds %q", file, line)
		}
		found[name] = value
	}
	return found
}

// run runs the commands of the action whose steps do not belong to other actions, but for those of skip.
func (r *runner) run(skip ...string) int {
	r.t.Helper()
	for _, step := range load(r.t, "action.yml").Runs.Steps {
		if step.Run == "" || slices.Contains(skip, step.Name) {
			continue
		}
		if strings.Contains(step.Run, "${{") {
			r.t.Errorf("%s: an expression in a command is part of the script, whatever it holds", step.Name)
		}
		env := map[string]string{}
		for name, value := range step.Env {
			env[name] = r.value(value)
		}
		code := r.command(env, step.Shell, "-e", "-o", "pipefail", "-c", step.Run)
		r.outputs[step.ID] = r.pairs("GITHUB_OUTPUT")
		maps.Copy(r.env, r.pairs("GITHUB_ENV"))
		if code != 0 {
			return code
		}
	}
	return 0
}

func (r *runner) log() string {
	raw, _ := os.ReadFile(filepath.Join(r.dir, "log"))
	return string(raw)
}

func (r *runner) says(words ...string) {
	r.t.Helper()
	for _, word := range words {
		if !strings.Contains(r.log(), word) {
			r.t.Errorf("not called with %q:\n%s", word, r.log())
		}
	}
}

func TestCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	r := newRunner(t, map[string]string{
		"command": `echo "it's \"$SM_CLUSTER\"" >` + file + ` && exit 7`,
		"lessons": "waypoint,authz", "keep": "failure", "timeout": "12m",
	})
	if code := r.run(); code != 7 {
		t.Errorf("exit code %d, want that of the command", code)
	}
	cluster := r.outputs["keys"]["cluster"]
	if !regexp.MustCompile(`^lab-4711-[0-9a-f]{8}$`).MatchString(cluster) {
		t.Errorf("the lab's name is %q", cluster)
	}
	raw, err := os.ReadFile(file)
	if err != nil || string(raw) != fmt.Sprintf("it's %q\n", cluster) {
		t.Errorf("the command wrote %q, %v", raw, err)
	}
	work := filepath.Join(r.dir, "temp", "ambientlab")
	r.says("called: go tool mage -compile "+filepath.Join(work, "lab"), "called: lab sm:bundle -to="+work+"/bundle",
		"called: lab sm:run -lessons=waypoint,authz -keep=failure -- bash -euo pipefail -c echo", "SM_TIMEOUT=12m",
		"KUBECONFIG="+work+"/kubeconfig", "SM_REPORT="+work+"/report", "SM_DUMP="+work+"/dump", "SM_PROVIDER=kind")
	for name, output := range load(t, "action.yml").Outputs {
		if r.value(output.Value) == "" {
			t.Errorf("output %s is empty", name)
		}
	}
}

// Without a command the lab stays, and later steps find it.
func TestWithoutCommand(t *testing.T) {
	r := newRunner(t, map[string]string{"provider": "embedded"})
	if code := r.run("Pull the images of the lab"); code != 0 {
		t.Errorf("exit code %d", code)
	}
	r.says("called: lab sm:run -lessons=apps -keep=always -- true", "SM_PROVIDER=embedded")
	if r.env["KUBECONFIG"] == "" || r.env["SM_CLUSTER"] == "" {
		t.Errorf("later steps get %v", r.env)
	}
}

func TestFailedLab(t *testing.T) {
	t.Setenv("LAB_FAKE_EXIT", "53")
	if code := newRunner(t, nil).run("Pull the images of the lab"); code != 53 {
		t.Errorf("exit code %d, want that of the lab", code)
	}
}

// The post step deletes the lab with the settings that it was created with, and fails where that fails.
func TestDelete(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed, so the post step, which a runner runs with its own node, cannot be tried")
	}
	metadata := load(t, "delete/action.yml")
	for _, c := range []struct{ exit, want string }{{"0", "0"}, {"41", "41"}} {
		t.Setenv("LAB_FAKE_EXIT", c.exit)
		r := newRunner(t, nil)
		binary := filepath.Join(r.dir, "lab")
		if err := os.WriteFile(binary, []byte(program), 0o755); err != nil {
			t.Fatal(err)
		}
		env := map[string]string{}
		for name := range metadata.Inputs {
			env["INPUT_"+strings.ToUpper(name)] = name + "-1"
		}
		env["INPUT_BINARY"] = binary
		path, err := filepath.Abs(filepath.Join(folder, "delete"))
		if err != nil {
			t.Fatal(err)
		}
		if code := r.command(env, "node", filepath.Join(path, metadata.Runs.Main)); code != 0 {
			t.Fatalf("main ends with %d", code)
		}
		state := map[string]string{}
		for name, value := range r.pairs("GITHUB_STATE") {
			state["STATE_"+name] = value
		}
		if code := r.command(state, "node", filepath.Join(path, metadata.Runs.Post)); fmt.Sprint(code) != c.want {
			t.Errorf("post ends with %d, want %s", code, c.want)
		}
		r.says("called: lab sm:delete", "SM_CLUSTER=cluster-1", "SM_PROVIDER=provider-1", "KUBECONFIG=kubeconfig-1")
		state["STATE_binary"] = filepath.Join(r.dir, "none")
		if code := r.command(state, "node", filepath.Join(path, metadata.Runs.Post)); code != 0 {
			t.Errorf("post without a lab ends with %d", code)
		}
	}
}

// The README has a row for each input and output.
func TestDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	a := load(t, "action.yml")
	for name, input := range a.Inputs {
		if !strings.Contains(string(raw), "| `"+name+"` |") || input.Description == "" {
			t.Errorf("input %s is not documented", name)
		}
	}
	for name, output := range a.Outputs {
		if !strings.Contains(string(raw), "`"+name+"`") || output.Description == "" {
			t.Errorf("output %s is not documented", name)
		}
	}
}

// What the action asks of other actions: it restores the compiled lab and its images, sees to the deletion before there
// is a lab, and uploads the report and the dump whatever happened.
func TestOtherActions(t *testing.T) {
	r := newRunner(t, map[string]string{"artifact": "lab-1"})
	if code := r.run("Pull the images of the lab"); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	work := filepath.Join(r.dir, "temp", "ambientlab")
	var order []string
	for _, step := range load(t, "action.yml").Runs.Steps {
		order = append(order, step.Name)
		given := map[string]string{}
		for name, value := range step.With {
			if name != "key" { // hashFiles is a function of the runner
				given[name] = strings.Join(strings.Fields(r.value(value)), " ")
			}
		}
		var want map[string]string
		switch step.Name {
		case "The compiled lab":
			want = map[string]string{"path": work + "/lab"}
		case "The images of the lab":
			want = map[string]string{"path": work + "/bundle"}
		case "Delete the lab when the job ends":
			want = map[string]string{
				"binary": work + "/lab", "cluster": r.outputs["keys"]["cluster"], "provider": "kind",
				"kubeconfig": work + "/kubeconfig",
			}
		case "Report and dump":
			want = map[string]string{
				"name": "lab-1", "path": work + "/report " + work + "/dump", "if-no-files-found": "ignore",
			}
			if !strings.HasPrefix(step.If, "always()") {
				t.Errorf("%s runs only if %s", step.Name, step.If)
			}
		default:
			if step.Uses != "" {
				t.Errorf("%s uses %s, which no test knows", step.Name, step.Uses)
			}
			continue
		}
		if !maps.Equal(given, want) {
			t.Errorf("%s: got %v, want %v", step.Name, given, want)
		}
		if strings.HasPrefix(step.Uses, "actions/cache@") && !strings.Contains(step.With["key"], "hashFiles(") {
			t.Errorf("the key of %s does not change with the sources: %s", step.Name, step.With["key"])
		}
	}
	if slices.Index(order, "Delete the lab when the job ends") > slices.Index(order, "The lab") {
		t.Errorf("the lab is created before its deletion is sure: %v", order)
	}
}

// The README's job for GitLab has one command, with all of its flags: a comma ends a plain value in a YAML list.
func TestGitLabJob(t *testing.T) {
	raw, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "```yaml\nlab:\n")
	block, _, _ := strings.Cut(after, "```")
	var job struct {
		Image  string   `json:"image"`
		Script []string `json:"script"`
	}
	if err := yaml.Unmarshal([]byte(block), &job); err != nil {
		t.Fatal(err)
	}
	if len(job.Script) != 1 ||
		!strings.HasSuffix(job.Script[0], "sm:run -lessons=waypoint,authz -- go test ./e2e/...") {
		t.Errorf("the commands are %q", job.Script)
	}
}
