package lab

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"ambientlab/internal/problem"
)

// Where the lab's cluster comes from.
const (
	ProviderKind     = "kind"
	ProviderExisting = "existing"
	ProviderEmbedded = "embedded"
	providerAuto     = "auto" // sm:lab only: kind where it can be made, else embedded
)

// Settings is everything that a user can choose, read once from the environment. The struct tags are the
// documentation: the README's table is made from them, and what `mage -h` names for a target is held against them.
type Settings struct {
	Provider    string        `env:"SM_PROVIDER" default:"kind" accepts:"kind, existing, embedded; for sm:lab also auto" help:"where the cluster comes from; INSTALL_KIND=y means kind, INSTALL_KIND=n existing; auto is kind where it can be made, else embedded"`
	Cluster     string        `env:"SM_CLUSTER" default:"ambient" accepts:"a DNS label, at most 40 characters" help:"name of the lab and of its cluster"`
	Namespace   string        `env:"SM_NAMESPACE" default:"default; after sm:install what was installed" accepts:"a namespace's name" help:"where appa, appb and the lessons live"`
	Workers     int           `env:"SM_WORKERS" default:"2" accepts:"0 to 9" help:"worker nodes of a kind cluster; not together with SM_KIND_CONFIG, which lists them"`
	NodeImage   string        `env:"SM_NODE_IMAGE" default:"the pinned kindest/node, or the bundle's" accepts:"an image reference" help:"kind node image, also in place of those that SM_KIND_CONFIG names; its Kubernetes must be one that Istio supports"`
	KindConfig  string        `env:"SM_KIND_CONFIG" default:"the lab's own" accepts:"a file" help:"kind configuration to use instead of the lab's own"`
	Bundle      string        `env:"SM_BUNDLE" default:"none: images are pulled" accepts:"a folder or .tar made by sm:bundle" help:"take every image from this bundle; nothing is pulled"`
	Addons      []string      `env:"SM_ADDONS" default:"all four" accepts:"a list of prometheus, grafana, jaeger, kiali; or none" help:"telemetry add-ons"`
	MetalLB     string        `env:"SM_METALLB" default:"auto" accepts:"auto, on or off" help:"load-balancer addresses; auto is on for kind and embedded, off for an existing cluster; after sm:install it is what was installed"`
	IstioValues string        `env:"SM_ISTIO_VALUES" default:"none" accepts:"a YAML file with keys base, istiod, cni, ztunnel" help:"extra Helm values, laid over the lab's"`
	Manifests   string        `env:"SM_MANIFESTS" default:"none" accepts:"a YAML or JSON file, or a folder of them" help:"extra objects, applied by sm:install: Namespaces and pull Secrets before istiod, the others last"`
	Packets     string        `env:"SM_PACKETS" default:"auto" accepts:"auto, on or off" help:"whether the pods of an embedded lab run and exchange packets, or are only reported as running; auto is on where this machine allows it; decided when the lab is created"`
	Ztunnel     string        `env:"SM_ZTUNNEL" default:"none: the Go node proxy" accepts:"an executable ztunnel" help:"ztunnel to run on the nodes of an embedded lab"`
	Timeout     time.Duration `env:"SM_TIMEOUT" default:"30m" accepts:"a duration such as 15m" help:"deadline of a whole target"`
	Output      string        `env:"SM_OUTPUT" default:"auto" accepts:"auto, plain or json" help:"how progress is shown on stderr"`
	// addonsChosen tells whether SM_ADDONS was given; if not, what was installed counts, see adoptRecord.
	addonsChosen bool
	// namespaceChosen is the same for SM_NAMESPACE.
	namespaceChosen bool
	Kubeconfig      string `env:"KUBECONFIG" default:"~/.kube/config" accepts:"a file, or several joined as kubectl reads them" help:"kubeconfig to read and, for kind and embedded, to write"`
}

// AddonNames lists the telemetry add-ons in the order in which they are shown.
var addonNames = []string{"prometheus", "grafana", "jaeger", "kiali"}

// DefaultNodeImage is kind v0.33's build of the newest Kubernetes that Istio 1.31 supports (Istio 1.31 release
// announcement: 1.32 to 1.36; kind v0.33 release notes for the digest).
const DefaultNodeImage = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"

// Load reads the settings with getenv (os.Getenv outside tests). Every wrong value is reported, not just the first;
// nothing has been touched by then.
func Load(getenv func(string) string) (Settings, error) {
	r := reader{getenv: getenv}
	s := Settings{
		Cluster:     r.match("SM_CLUSTER", "ambient", regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)),
		Namespace:   r.namespace("SM_NAMESPACE", "default"),
		Workers:     r.number("SM_WORKERS", 2, 0, 9),
		NodeImage:   r.match("SM_NODE_IMAGE", "", regexp.MustCompile(`^[a-z0-9]([a-zA-Z0-9._:/@-])*$`)),
		KindConfig:  r.path("SM_KIND_CONFIG"),
		Bundle:      r.path("SM_BUNDLE"),
		Addons:      r.addons("SM_ADDONS"),
		MetalLB:     r.oneOf("SM_METALLB", "auto", "auto", "on", "off"),
		IstioValues: r.path("SM_ISTIO_VALUES"),
		Manifests:   r.path("SM_MANIFESTS"),
		Packets:     r.oneOf("SM_PACKETS", "auto", "auto", "on", "off"),
		Ztunnel:     r.path("SM_ZTUNNEL"),
		Timeout:     r.duration("SM_TIMEOUT", 30*time.Minute),
		Output:      r.oneOf("SM_OUTPUT", "auto", "auto", "plain", "json"),
		Kubeconfig:  getenv("KUBECONFIG"),
	}
	s.Provider = r.provider()
	s.addonsChosen = getenv("SM_ADDONS") != ""
	s.namespaceChosen = getenv("SM_NAMESPACE") != ""
	if s.Namespace == "istio-system" || s.Namespace == "metallb-system" || strings.HasPrefix(s.Namespace, "kube-") {
		r.wrong("SM_NAMESPACE", s.Namespace, "a namespace of the applications' own, not one of the system's")
	}
	if s.Provider != ProviderKind && s.Provider != providerAuto && s.KindConfig != "" {
		r.conflict("SM_KIND_CONFIG=%s is for a kind cluster, while the provider is %s", s.KindConfig, s.Provider)
	}
	if workers := getenv("SM_WORKERS"); workers != "" && s.KindConfig != "" {
		r.conflict("SM_WORKERS=%s and SM_KIND_CONFIG=%s both say how many worker nodes there are", workers, s.KindConfig)
	}
	return s, r.err()
}

// UseMetalLB tells whether the lab gives out load-balancer addresses itself.
func (s Settings) UseMetalLB() bool {
	if s.MetalLB == "auto" {
		return s.Provider != ProviderExisting
	}
	return s.MetalLB == "on"
}

// HasAddon tells whether the telemetry add-on is wanted.
func (s Settings) HasAddon(name string) bool { return slices.Contains(s.Addons, name) }

type reader struct {
	getenv            func(string) string
	faults, conflicts []string
}

// err is everything that was found wrong.
func (r *reader) err() error {
	var errs []error
	if len(r.faults) > 0 {
		errs = append(errs, problem.New(problem.SettingInvalid, nil, "%s", strings.Join(r.faults, "\n")))
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
	r.faults = append(r.faults, fmt.Sprintf("%s=%q is not accepted; accepted: %s", name, value, accepts))
}

func (r *reader) provider() string {
	choice, legacy := r.getenv("SM_PROVIDER"), r.getenv("INSTALL_KIND")
	byLegacy := map[string]string{"": "", "y": ProviderKind, "Y": ProviderKind, "yes": ProviderKind, "true": ProviderKind, "n": ProviderExisting, "N": ProviderExisting, "no": ProviderExisting, "false": ProviderExisting}
	fromLegacy, known := byLegacy[legacy]
	if !known {
		r.wrong("INSTALL_KIND", legacy, "y (a kind cluster) or n (the cluster of the current kubeconfig context)")
	}
	switch choice {
	case "", ProviderKind, ProviderExisting, ProviderEmbedded:
	case providerAuto:
		if fromLegacy != "" {
			return fromLegacy // it is the more definite of the two
		}
	default:
		r.wrong("SM_PROVIDER", choice, "kind, existing or embedded")
		return ProviderKind
	}
	if choice != "" && fromLegacy != "" && choice != fromLegacy {
		r.conflict("SM_PROVIDER=%s and INSTALL_KIND=%s, which means %s", choice, legacy, fromLegacy)
	}
	return cmp.Or(choice, fromLegacy, ProviderKind)
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
