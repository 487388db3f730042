// Package session is one run of one target: the settings as they were given, what was found of the lab, the one merge
// of both, and the connections.
package session

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/cluster"
	"ambientlab/internal/problem"
)

// ProviderAuto is for sm:lab and sm:workshop only: a lab of this name where there is one, else kind where it can be
// created, else embedded.
const ProviderAuto = "auto"

// DefaultDump is the folder for dumps in a CI job, and for the targets that always write one.
const DefaultDump = "ambientlab-dump"

// inCI tells whether this is a job of a CI platform; all common ones set CI.
func inCI(getenv func(string) string) bool { return getenv("CI") != "" && getenv("CI") != "false" }

const packetsAuto = "auto"

//revive:disable:line-length-limit struct tags cannot be broken

// Settings is everything that a user can choose, read once from the environment and never changed. The struct tags are
// the documentation: the README's table is made from them, and a test compares them with what `mage -h` names for a
// target.
type Settings struct {
	Provider    string        `env:"SM_PROVIDER" default:"the place where the lab of this name is; kind for a new lab" accepts:"kind, existing, embedded; for sm:lab and sm:workshop also auto" help:"where a new lab is created, and which lab is meant where two have the same name; INSTALL_KIND=y means kind, INSTALL_KIND=n existing; auto creates a kind cluster where that is possible, else an embedded one"`
	Cluster     string        `env:"SM_CLUSTER" default:"ambient; in CI a name of the job's own" accepts:"a DNS label, at most 40 characters" help:"name of the lab and of its cluster"`
	Namespace   string        `env:"SM_NAMESPACE" default:"default; after sm:install what was installed" accepts:"a namespace's name" help:"where appa, appb and the lessons live"`
	Workers     int           `env:"SM_WORKERS" default:"2" accepts:"0 to 9" help:"worker nodes of a kind cluster; not together with SM_KIND_CONFIG, which lists them"`
	NodeImage   string        `env:"SM_NODE_IMAGE" default:"the pinned kindest/node, or the bundle's" accepts:"an image reference" help:"kind node image, also in place of those that SM_KIND_CONFIG names; its Kubernetes must be one that Istio supports"`
	KindConfig  string        `env:"SM_KIND_CONFIG" default:"the lab's own" accepts:"a file" help:"kind configuration to use instead of the lab's own"`
	Bundle      string        `env:"SM_BUNDLE" default:"none: images are pulled" accepts:"a folder or .tar made by sm:bundle" help:"take every image from this bundle; nothing is pulled"`
	Mirror      string        `env:"SM_REGISTRY_MIRROR" default:"none: images come from their own registries" accepts:"a URL that the nodes can reach, such as https://mirror.example.com/prefix" help:"registry that serves the images of all others, such as a pull-through cache: for the node image, the nodes of a new kind cluster, and sm:bundle; https://USER:PASSWORD@HOST, or the credentials of the Docker CLI"`
	MirrorCA    string        `env:"SM_REGISTRY_CA" default:"the system's authorities" accepts:"a PEM file" help:"certificate of the authority of SM_REGISTRY_MIRROR"`
	Addons      []string      `env:"SM_ADDONS" default:"all four" accepts:"a list of prometheus, grafana, jaeger, kiali; or none" help:"telemetry add-ons"`
	MetalLB     string        `env:"SM_METALLB" default:"auto" accepts:"auto, on or off" help:"load-balancer addresses; auto is on for kind and embedded, off for an existing cluster; after sm:install it is what was installed"`
	IstioValues string        `env:"SM_ISTIO_VALUES" default:"none" accepts:"a YAML file with keys base, istiod, cni, ztunnel" help:"extra Helm values, merged into the lab's"`
	Manifests   string        `env:"SM_MANIFESTS" default:"none" accepts:"a YAML or JSON file, or a folder of them" help:"extra objects, applied by sm:install: Namespaces and pull Secrets before istiod, the others last"`
	Packets     string        `env:"SM_PACKETS" default:"auto" accepts:"auto, on or off" help:"whether the pods of an embedded lab run and exchange packets, or are only reported as running; auto is on where this machine allows it; decided when the lab is created"`
	Ztunnel     string        `env:"SM_ZTUNNEL" default:"none: the Go node proxy" accepts:"an executable ztunnel" help:"ztunnel to run on the nodes of an embedded lab"`
	Timeout     time.Duration `env:"SM_TIMEOUT" default:"30m" accepts:"a duration such as 15m" help:"deadline of a whole target; a step may take a third of it, and at least ten minutes"`
	Reserve     time.Duration `env:"SM_RESERVE" default:"90s" accepts:"a duration such as 2m" help:"time at the end of SM_TIMEOUT that sm:run keeps for collecting evidence and deleting the lab"`
	Output      string        `env:"SM_OUTPUT" default:"auto" accepts:"auto, plain, json, github or gitlab" help:"how progress is shown on stderr; auto is github or gitlab in a job of these, a live tree on a terminal, else plain"`
	Report      string        `env:"SM_REPORT" default:"none" accepts:"a folder, which is made" help:"where every target writes JUnit, and sm:verify its report"`
	Dump        string        `env:"SM_DUMP" default:"ambientlab-dump in CI; elsewhere none" accepts:"a folder, which is made; or none" help:"where a target that fails writes what helps to find the cause, as sm:dump does"`
	Trace       string        `env:"SM_TRACE" default:"none" accepts:"a file" help:"write a trace: how long each step took, waited and computed, for https://ui.perfetto.dev; and print it as a table"`
	Kubeconfig  string        `env:"KUBECONFIG" default:"~/.kube/config" accepts:"a file, or several joined as kubectl reads them" help:"kubeconfig to read and, for kind and embedded, to write"`

	// addonsSet and namespaceSet tell whether SM_ADDONS and SM_NAMESPACE were given; see Merge.
	addonsSet, namespaceSet bool
}

//revive:enable:line-length-limit

// labName matches the name of a lab.
var labName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// addonNames lists the telemetry add-ons in the order in which they are shown.
var addonNames = []string{"prometheus", "grafana", "jaeger", "kiali"}

// Load reads the settings with getenv (os.Getenv outside tests). Every wrong value is reported, not just the first;
// nothing has been touched by then.
func Load(getenv func(string) string) (Settings, error) {
	r := reader{getenv: getenv}
	s := Settings{
		Cluster:     r.match("SM_CLUSTER", defaultCluster(getenv), labName),
		Namespace:   r.namespace("SM_NAMESPACE", "default"),
		Workers:     r.number("SM_WORKERS", 2, 0, 9),
		NodeImage:   r.match("SM_NODE_IMAGE", "", regexp.MustCompile(`^[a-z0-9]([a-zA-Z0-9._:/@-])*$`)),
		KindConfig:  r.path("SM_KIND_CONFIG"),
		Bundle:      r.path("SM_BUNDLE"),
		Mirror:      r.mirror("SM_REGISTRY_MIRROR"),
		MirrorCA:    r.path("SM_REGISTRY_CA"),
		Addons:      r.addons("SM_ADDONS"),
		MetalLB:     r.oneOf("SM_METALLB", "auto", "auto", "on", "off"),
		IstioValues: r.path("SM_ISTIO_VALUES"),
		Manifests:   r.path("SM_MANIFESTS"),
		Packets:     r.oneOf("SM_PACKETS", packetsAuto, packetsAuto, "on", "off"),
		Ztunnel:     r.path("SM_ZTUNNEL"),
		Timeout:     r.duration("SM_TIMEOUT", 30*time.Minute),
		Reserve:     r.duration("SM_RESERVE", 90*time.Second),
		Output:      r.oneOf("SM_OUTPUT", "auto", "auto", "plain", "json", "github", "gitlab"),
		Report:      r.folder("SM_REPORT", ""),
		Dump:        r.dump("SM_DUMP"),
		Trace:       getenv("SM_TRACE"),
		Kubeconfig:  getenv("KUBECONFIG"),
	}
	s.Provider = r.provider()
	if s.Reserve >= s.Timeout && getenv("SM_RESERVE") != "" {
		r.conflict("SM_RESERVE=%s leaves nothing of SM_TIMEOUT=%s", s.Reserve, s.Timeout)
	}
	s.Reserve = min(s.Reserve, s.Timeout/2)
	if s.MirrorCA != "" && getenv("SM_REGISTRY_MIRROR") == "" {
		r.conflict("SM_REGISTRY_CA=%s is for SM_REGISTRY_MIRROR, which is not set", s.MirrorCA)
	}
	s.addonsSet = getenv("SM_ADDONS") != ""
	s.namespaceSet = getenv("SM_NAMESPACE") != ""
	if s.Namespace == "istio-system" || s.Namespace == "metallb-system" || strings.HasPrefix(s.Namespace, "kube-") {
		r.wrong("SM_NAMESPACE", s.Namespace, "a namespace for the applications, not a system namespace")
	}
	r.conflicts = append(r.conflicts, s.providerConflicts(s.Provider)...)
	if workers := getenv("SM_WORKERS"); workers != "" && s.KindConfig != "" {
		r.conflict("SM_WORKERS=%s and SM_KIND_CONFIG=%s both say how many worker nodes there are", workers,
			s.KindConfig)
	}
	return s, r.err()
}

// providerConflicts lists the settings that do not go with a provider. With a provider that is still to be chosen they
// may all go.
func (s Settings) providerConflicts(provider string) []string {
	if slices.Contains([]string{ProviderAuto, ""}, provider) {
		return nil
	}
	var conflicts []string
	add := func(given bool, setting, value, of string) {
		if given && provider != of {
			conflicts = append(conflicts, fmt.Sprintf("%s=%s is for %s, while the provider is %s", setting, value,
				map[string]string{
					cluster.ProviderKind:     "a kind cluster",
					cluster.ProviderEmbedded: "an embedded lab (SM_PROVIDER=embedded); elsewhere pods always run",
				}[of], provider))
		}
	}
	add(s.KindConfig != "", "SM_KIND_CONFIG", s.KindConfig, cluster.ProviderKind)
	add(s.Packets != packetsAuto, "SM_PACKETS", s.Packets, cluster.ProviderEmbedded)
	add(s.Ztunnel != "", "SM_ZTUNNEL", s.Ztunnel, cluster.ProviderEmbedded)
	return conflicts
}

// DumpOr is the folder for dumps, or another where SM_DUMP names none.
func (s Settings) DumpOr(folder string) string { return cmp.Or(s.Dump, folder) }

// Deadlines of single steps follow SM_TIMEOUT: a user who raises it for a slow machine gets longer steps too.
const (
	minStepTimeout      = 10 * time.Minute
	minShortStepTimeout = 2 * time.Minute
)

// StepTimeout bounds a step that waits for pods or proxies: a third of the whole target's time, and at least ten
// minutes.
func (s Settings) StepTimeout() time.Duration { return max(minStepTimeout, s.Timeout/3) }

// ShortStepTimeout bounds a step that waits for no pod: a fifteenth of the target's time, and at least two minutes.
func (s Settings) ShortStepTimeout() time.Duration { return max(minShortStepTimeout, s.Timeout/15) }

// KubeconfigFile is the file that the kind and the embedded provider write: the first that KUBECONFIG names, or
// kubectl's.
func (s Settings) KubeconfigFile() string {
	if s.Kubeconfig != "" {
		return filepath.SplitList(s.Kubeconfig)[0]
	}
	return clientcmd.RecommendedHomeFile
}

type reader struct {
	getenv             func(string) string
	invalid, conflicts []string
}

// err is everything that was found wrong.
func (r *reader) err() error {
	var errs []error
	if len(r.invalid) > 0 {
		errs = append(errs, problem.New(problem.SettingInvalid, nil, "%s", strings.Join(r.invalid, "\n")))
	}
	if len(r.conflicts) > 0 {
		errs = append(errs, problem.New(problem.SettingConflict, nil, "%s", strings.Join(r.conflicts, "\n")))
	}
	return errors.Join(errs...)
}

func (r *reader) conflict(format string, args ...any) {
	r.conflicts = append(r.conflicts, fmt.Sprintf(format, args...))
}

func (r *reader) wrong(name, value, accepts string) {
	r.invalid = append(r.invalid, fmt.Sprintf("%s=%q is not accepted; accepted: %s", name, value, accepts))
}

// provider is what SM_PROVIDER and INSTALL_KIND say, or "" where they say nothing.
func (r *reader) provider() string {
	choice, legacy := r.getenv("SM_PROVIDER"), r.getenv("INSTALL_KIND")
	byLegacy := map[string]string{
		"": "", "y": cluster.ProviderKind, "Y": cluster.ProviderKind,
		"yes": cluster.ProviderKind, "true": cluster.ProviderKind, "n": cluster.ProviderExisting,
		"N": cluster.ProviderExisting, "no": cluster.ProviderExisting, "false": cluster.ProviderExisting,
	}
	fromLegacy, known := byLegacy[legacy]
	if !known {
		r.wrong("INSTALL_KIND", legacy, "y (a kind cluster) or n (the cluster of the current kubeconfig context)")
	}
	switch choice {
	case "", cluster.ProviderKind, cluster.ProviderExisting, cluster.ProviderEmbedded:
	case ProviderAuto:
		if fromLegacy != "" {
			return fromLegacy // INSTALL_KIND names a provider, auto does not
		}
	default:
		r.wrong("SM_PROVIDER", choice, "kind, existing or embedded")
		return ""
	}
	if choice != "" && fromLegacy != "" && choice != fromLegacy {
		r.conflict("SM_PROVIDER=%s and INSTALL_KIND=%s, which means %s", choice, legacy, fromLegacy)
	}
	return cmp.Or(choice, fromLegacy)
}

func (r *reader) match(name, fallback string, pattern *regexp.Regexp) string {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	if !pattern.MatchString(value) {
		r.wrong(name, value, accepts(name))
	}
	return value
}

func (r *reader) namespace(name, fallback string) string {
	value := cmp.Or(r.getenv(name), fallback)
	if len(validation.IsDNS1123Label(value)) > 0 {
		r.wrong(name, value, accepts(name))
	}
	return value
}

func (r *reader) number(name string, fallback, low, high int) int {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		r.wrong(name, value, accepts(name))
		return fallback
	}
	return n
}

func (r *reader) duration(name string, fallback time.Duration) time.Duration {
	value := r.getenv(name)
	if value == "" {
		return fallback
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 10*time.Second {
		r.wrong(name, value, accepts(name)+", at least 10s")
		return fallback
	}
	return d
}

func (r *reader) oneOf(name, fallback string, choices ...string) string {
	value := cmp.Or(r.getenv(name), fallback)
	if !slices.Contains(choices, value) {
		r.wrong(name, value, accepts(name))
		return fallback
	}
	return value
}

func (r *reader) path(name string) string {
	value := r.getenv(name)
	if value == "" {
		return ""
	}
	absolute, err := filepath.Abs(value)
	if err == nil {
		_, err = os.Stat(absolute)
	}
	if err != nil {
		r.wrong(name, value, accepts(name)+" that exists and can be read")
		return ""
	}
	return absolute
}

// folder reads a folder that need not exist. A file of that name is refused.
func (r *reader) folder(name, fallback string) string {
	value := cmp.Or(r.getenv(name), fallback)
	if value == "" {
		return ""
	}
	absolute, err := filepath.Abs(value)
	if err == nil {
		var info os.FileInfo
		if info, err = os.Stat(absolute); errors.Is(err, fs.ErrNotExist) {
			return absolute
		} else if err == nil && !info.IsDir() {
			err = fs.ErrExist
		}
	}
	if err != nil {
		r.wrong(name, value, accepts(name))
		return ""
	}
	return absolute
}

// mirror reads the URL of a registry. Loopback addresses are refused: in a node they are the node's own.
func (r *reader) mirror(name string) string {
	value := r.getenv(name)
	if value == "" {
		return ""
	}
	parsed, err := url.Parse(value)
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" ||
		parsed.RawQuery != "" || parsed.Fragment != "" {
		r.wrong(name, value[strings.LastIndex(value, "@")+1:], accepts(name)) // without credentials
		return ""
	}
	if ip := net.ParseIP(parsed.Hostname()); parsed.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		r.wrong(name, parsed.Redacted(), accepts(name)+"; a loopback address leads to the node itself")
		return ""
	}
	return value
}

// dump is the folder for dumps. A CI job has one without a setting: its machine is gone when the job has ended.
func (r *reader) dump(name string) string {
	switch {
	case r.getenv(name) == "none":
		return ""
	case inCI(r.getenv):
		return r.folder(name, DefaultDump)
	}
	return r.folder(name, "")
}

func (r *reader) addons(name string) []string {
	value := r.getenv(name)
	switch strings.TrimSpace(value) {
	case "":
		return slices.Clone(addonNames)
	case "none":
		return nil
	}
	chosen := map[string]bool{}
	for _, addon := range strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' }) {
		if !slices.Contains(addonNames, addon) {
			r.wrong(name, value, accepts(name))
			return nil
		}
		chosen[addon] = true
	}
	return slices.DeleteFunc(slices.Clone(addonNames), func(addon string) bool { return !chosen[addon] })
}

// requestedAddons are the add-ons that SM_ADDONS names; none where it is not set.
func (s Settings) requestedAddons() []string {
	if !s.addonsSet {
		return nil
	}
	return s.Addons
}
