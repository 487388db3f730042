package lab

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/dump"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
	"ambientlab/internal/redact"
	"ambientlab/internal/session"
	"ambientlab/internal/ui"
)

// Dump is the target that writes what helps to find the cause of a failure into one zip. out is the folder; empty means
// that of SM_DUMP.
func Dump(out string) Target {
	return func(ctx context.Context, env *session.Env) error {
		run := record.Run{Target: "dump"}
		if env.Recording != nil {
			run = env.Recording(nil)
		}
		if out == "" {
			out = env.Settings.DumpOr(session.DefaultDump)
		}
		path, err := collectInto(ctx, env, run, out)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(env.Out, path)
		return err
	}
}

// collectAfterFailure collects evidence where SM_DUMP names a place for it and the target failed for another reason
// than what it was given, or a signal.
func collectAfterFailure(ctx context.Context, env *session.Env, run record.Run) {
	if env.Settings.Dump == "" || refusedInput(run.Err) || problem.Is(run.Err, problem.Interrupted) {
		return
	}
	collect(context.WithoutCancel(ctx), env, run, env.Settings.Dump)
}

// collect collects evidence about a failure. That it cannot be written is told, and does not hide the failure.
func collect(ctx context.Context, env *session.Env, run record.Run, folder string) {
	if _, err := collectInto(ctx, env, run, folder); err != nil {
		env.Tell("no evidence was collected: %v", err)
	}
}

// collectInto collects evidence and gives the path of the zip.
func collectInto(ctx context.Context, env *session.Env, run record.Run, folder string) (string, error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, dump.Budget)
	defer cancel()
	e := &evidence{env: env, run: run}
	e.find(ctx)
	secrets := redact.New(e.secrets(ctx), home())
	contents := dump.Collect(ctx, run, e.parts(), secrets, dump.Budget-time.Since(began))
	var archive bytes.Buffer
	if err := dump.Write(&archive, contents, dump.Limit); err != nil {
		return "", err
	}
	path := filepath.Join(folder, fmt.Sprintf("dump-%s-%s.zip", env.Settings.Cluster, run.Target))
	err := os.MkdirAll(folder, 0o755)
	if err == nil {
		err = atomicfile.Write(path, archive.Bytes(), 0o644)
	}
	if err != nil {
		return "", problem.New(problem.SettingFileUnreadable, err, "%s cannot be written", path)
	}
	env.Tell("evidence: %s (%d KiB, %d files, %d parts are missing, collected in %s); open its %s", path,
		archive.Len()>>10, len(contents.Files), len(contents.Missing), time.Since(began).Round(100*time.Millisecond),
		dump.PageName)
	return path, nil
}

func home() string {
	folder, err := os.UserHomeDir()
	if err != nil {
		return "" // then no text names it
	}
	return folder
}

// evidence collects what is known of one lab.
type evidence struct {
	env *session.Env
	run record.Run
	// provider is the lab's, or nil, and then noProvider says why. docker is what the Docker engine says of itself, or
	// nil, and then noDocker says why.
	provider   cluster.Provider
	noProvider error
	docker     *client.SystemInfoResult
	noDocker   error
	// cluster is the connection to the API server, or nil, and then noCluster says why.
	cluster   *connected
	noCluster error
}

// findLimit bounds the look for the lab and its API server.
const findLimit = 4 * time.Second

// find finds the lab, its Docker engine and its API server, as far as they answer.
func (e *evidence) find(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	if info, err := e.env.DockerInfo(ctx); err != nil {
		e.noDocker = err
	} else {
		e.docker = &info
	}
	if e.provider, e.noProvider = e.env.FindProvider(ctx); e.noProvider != nil {
		e.provider, e.noCluster = nil, e.noProvider
		return
	}
	e.cluster, e.noCluster = connect(ctx, e.env, e.provider)
}

// parts lists what is collected. Each part can fail by itself.
func (e *evidence) parts() []dump.Part {
	parts := []dump.Part{
		{Name: "the run", Collect: e.collectRun},
		{Name: "the last report", Collect: e.collectReport},
		{Name: "this machine", Collect: e.collectHost},
		{Name: "Docker", Collect: e.collectDocker},
		{Name: "the checks of sm:doctor", Collect: e.target("doctor.txt", Doctor)},
	}
	if e.provider == nil {
		return append(parts, missing("the lab", e.noProvider))
	}
	parts = append(parts, dump.Part{Name: "logs of the nodes", Collect: e.collectNodeLogs},
		dump.Part{Name: "the status", Collect: e.target("status.txt", Status)})
	plan := dump.Part{Name: "the plan of sm:install", Collect: e.target("plan.txt", Plan("install", ""))}
	if e.cluster == nil {
		const all = "objects, events, logs of the pods, istiod, the proxies and ztunnel"
		if !problem.Is(e.noCluster, problem.ClusterNone) {
			plan = missing(plan.Name, e.noCluster) // it would wait for the API server
		}
		return append(parts, plan, missing(all, e.noCluster))
	}
	parts = append(parts, plan)
	return append(parts,
		dump.Part{Name: "the objects of the lab", Collect: e.of((*connected).collectObjects)},
		dump.Part{Name: "the nodes and pods", Collect: e.of((*connected).collectPods)},
		dump.Part{Name: "the events of the cluster", Collect: e.of((*connected).collectEvents)},
		dump.Part{Name: "logs of the pods", Collect: e.of((*connected).collectLogs)},
		dump.Part{Name: "istiod", Collect: e.of((*connected).collectIstiod)},
		dump.Part{Name: "the proxies", Collect: e.of((*connected).collectProxies)},
		dump.Part{Name: "ztunnel", Collect: e.of((*connected).collectZtunnels)})
}

// missing is a part that cannot be collected.
func missing(name string, why error) dump.Part {
	return dump.Part{Name: name, Collect: func(context.Context, dump.Add) error { return why }}
}

// of collects from the API server.
func (e *evidence) of(
	collect func(c *connected, ctx context.Context, add dump.Add) error,
) func(context.Context, dump.Add) error {
	return func(ctx context.Context, add dump.Add) error { return collect(e.cluster, ctx, add) }
}

// target collects what a target prints that changes nothing.
func (e *evidence) target(file string, target Target) func(context.Context, dump.Add) error {
	return func(ctx context.Context, add dump.Add) error {
		var out bytes.Buffer
		err := target(ctx, e.env.Quiet(&out))
		if out.Len() == 0 && err != nil {
			return err
		}
		if err != nil {
			fmt.Fprintf(&out, "\n%v\n", err) // such as what sm:doctor found
		}
		add(file, out.Bytes())
		return nil
	}
}

func (e *evidence) collectRun(_ context.Context, add dump.Add) error {
	var events bytes.Buffer
	lines := ui.New(ui.JSON, &events, func(string) string { return "" })
	for _, event := range e.run.Events {
		lines.Handle(event)
	}
	lines.Failure(e.run.Err)
	add("run/events.jsonl", events.Bytes())
	if e.run.Err != nil {
		add("run/failure.txt", []byte(ui.FailureText(e.run.Err, ui.Unwrapped)))
	}
	var settings bytes.Buffer
	for _, set := range e.run.Settings {
		origin := "default"
		if set.Given {
			origin = "environment"
		}
		fmt.Fprintf(&settings, "%s=%s (%s)\n", set.Name, set.Value, origin)
	}
	add("run/settings.txt", settings.Bytes())
	return nil
}

// collectReport takes what sm:verify and the targets before wrote into SM_REPORT.
func (e *evidence) collectReport(_ context.Context, add dump.Add) error {
	folder := e.env.Settings.Report
	if folder == "" {
		return errors.New("SM_REPORT is not set, so no target writes a report")
	}
	var files []string
	for _, pattern := range []string{"junit*.xml", "report.json", "report.html"} {
		found, _ := filepath.Glob(filepath.Join(folder, pattern)) // the pattern is valid
		files = append(files, found...)
	}
	if len(files) == 0 {
		return fmt.Errorf("SM_REPORT=%s holds no report", folder)
	}
	return addFiles(folder, "report", files, add, func(name string) string { return name })
}

// addFiles adds files of a folder under another folder of the dump. name may change their names; "" leaves a file out.
func addFiles(folder, under string, files []string, add dump.Add, name func(string) string) error {
	var errs []error
	for _, file := range files {
		relative, err := filepath.Rel(folder, file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		to := name(filepath.ToSlash(relative))
		if to == "" {
			continue
		}
		content, err := os.ReadFile(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		add(under+"/"+to, content)
	}
	return errors.Join(errs...)
}

// hostFiles are files of Linux that say what state a machine is in.
var hostFiles = []string{
	"/proc/version", "/proc/loadavg", "/proc/meminfo", "/proc/pressure/cpu", "/proc/pressure/memory",
}

func (e *evidence) collectHost(_ context.Context, add dump.Add) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s/%s, %d processors, Go %s\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	for _, file := range hostFiles {
		if content, err := os.ReadFile(file); err == nil {
			fmt.Fprintf(&b, "\n%s\n%s", file, content)
		}
	}
	add("host.txt", b.Bytes())
	return nil
}

// collectDocker describes the engine and its containers with their networks.
func (e *evidence) collectDocker(ctx context.Context, add dump.Add) error {
	if e.docker == nil {
		return e.noDocker
	}
	info := e.docker.Info
	var b bytes.Buffer
	fmt.Fprintf(&b, "Docker %s, %s, kernel %s, %s, cgroup v%s, %d processors, %d MiB of memory\n",
		info.ServerVersion, info.OperatingSystem, info.KernelVersion, info.Driver, info.CgroupVersion, info.NCPU,
		info.MemTotal>>20)
	listed, err := e.env.Docker().ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		add("docker.txt", b.Bytes())
		return fmt.Errorf("listing containers: %w", err)
	}
	for _, c := range listed.Items {
		var networks []string
		if c.NetworkSettings != nil {
			for name, endpoint := range c.NetworkSettings.Networks {
				networks = append(networks, fmt.Sprintf("%s %s", name, endpoint.IPAddress))
			}
		}
		slices.Sort(networks)
		fmt.Fprintf(&b, "\ncontainer %s: %s, image %s, %s", strings.Join(c.Names, " "), c.Status, c.Image,
			strings.Join(networks, ", "))
	}
	add("docker.txt", append(b.Bytes(), '\n'))
	return nil
}

// containerID ends the names of the logs that a node keeps of its containers.
var containerID = regexp.MustCompile(`-[0-9a-f]{64}\.log$`)

// nodeLog chooses, among the files that a provider collects, the logs of the nodes and of the control plane: those of
// other pods come from the API server. It takes what is different in every run out of their names.
func nodeLog(name string) string {
	if !strings.HasSuffix(name, ".log") && !strings.HasSuffix(name, ".log.before") || strings.Contains(name, "/pods/") {
		return ""
	}
	if strings.Contains(name, "/containers/") {
		if !strings.Contains(name, "_kube-system_") {
			return ""
		}
		name = containerID.ReplaceAllString(name, ".log")
	}
	return strings.Replace(name, ".log.before", ".before.log", 1)
}

func (e *evidence) collectNodeLogs(ctx context.Context, add dump.Add) error {
	source, ok := e.provider.(cluster.LogSource)
	if !ok {
		return errors.New("the nodes of a cluster that the lab did not create cannot be reached")
	}
	folder, err := os.MkdirTemp("", "ambientlab-logs-")
	if err != nil {
		return fmt.Errorf("making a folder for logs: %w", err)
	}
	defer func() { _ = os.RemoveAll(folder) }()
	// What was written before the time was up, or before one log failed, is kept.
	failed := source.CollectLogs(ctx, folder)
	var files []string
	walked := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	return errors.Join(failed, walked, addFiles(folder, "nodes", files, add, nodeLog))
}

// secrets gives the secrets that this machine and the cluster know, so that they are removed wherever they occur.
func (e *evidence) secrets(ctx context.Context) []string {
	secrets := redact.Environment(os.Environ())
	secrets = append(secrets, registrySecrets(docker.SystemEnv().ConfigDir())...)
	for _, path := range cluster.NewKubeconfig(e.env.Settings.Kubeconfig).Paths() {
		if config, err := clientcmd.LoadFromFile(path); err == nil {
			secrets = append(secrets, kubeconfigSecrets(config)...)
		}
	}
	if e.cluster == nil {
		return secrets
	}
	ctx, cancel := context.WithTimeout(ctx, findLimit)
	defer cancel()
	return append(secrets, clusterSecrets(ctx, e.cluster.kube)...)
}

// registrySecrets reads the credentials of registries in the folder of the docker command's configuration.
func registrySecrets(folder string) []string {
	raw, err := os.ReadFile(filepath.Join(folder, "config.json"))
	if err != nil {
		return nil
	}
	var config struct {
		Auths map[string]struct{ Auth, Password, IdentityToken, RegistryToken string }
		// Headers that the docker command sends with every request.
		HttpHeaders map[string]string //nolint:revive // docker's name
	}
	if json.Unmarshal(raw, &config) != nil {
		return nil
	}
	var secrets []string
	for _, auth := range config.Auths {
		secrets = append(secrets, auth.Auth, auth.Password, auth.IdentityToken, auth.RegistryToken)
		if plain, err := base64.StdEncoding.DecodeString(auth.Auth); err == nil {
			_, password, _ := strings.Cut(string(plain), ":")
			secrets = append(secrets, string(plain), password)
		}
	}
	for _, header := range config.HttpHeaders {
		secrets = append(secrets, header)
	}
	return secrets
}

func kubeconfigSecrets(config *api.Config) []string {
	var secrets []string
	for _, user := range config.AuthInfos {
		secrets = append(secrets, user.Token, user.Password, string(user.ClientKeyData))
		if user.AuthProvider != nil {
			for _, value := range user.AuthProvider.Config {
				secrets = append(secrets, value)
			}
		}
		if user.Exec != nil {
			for _, variable := range user.Exec.Env {
				if redact.IsSecretName(variable.Name) {
					secrets = append(secrets, variable.Value)
				}
			}
		}
	}
	return secrets
}

// clusterSecrets reads the values of all Secrets, or of those that this user may read.
func clusterSecrets(ctx context.Context, kube kubernetes.Interface) []string {
	list, err := kube.CoreV1().Secrets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil // what else is collected is searched for the forms of secrets all the same
	}
	var secrets []string
	for _, secret := range list.Items {
		for key, value := range secret.Data {
			switch key {
			case "namespace", "ca.crt", "root-cert.pem", "ca-cert.pem", "cert-chain.pem", "tls.crt": // no secrets
			default:
				secrets = append(secrets, string(value))
			}
		}
	}
	return secrets
}

// get reads a page of an HTTP server of this machine.
func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, response.Status)
	}
	return io.ReadAll(response.Body)
}
