package source

import (
	"bytes"
	"errors"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/source/layer"
)

// recipe says what an image is made of. The paths, users and commands are those of the real image of that reference, so
// that manifests need no change.
type recipe struct {
	ref string
	// programs are put at these paths, each in a layer of its own.
	programs []placed
	// files come from a module's folder.
	files []copied
	// packages are Debian packages, with what they depend on.
	packages []string
	// extra are files written here, links mostly.
	extra []layer.File
	// envoy puts upstream Envoy at /usr/local/bin/envoy.
	envoy  bool
	config v1.Config
	// substitute says what the image is where it is not what its reference says.
	substitute string
}

type placed struct{ program, path string }

type copied struct {
	nested, module, from, to string
	// edit, where there is one, changes the content on its way.
	edit func([]byte) ([]byte, error)
}

// Users of the images' programs, as the real images number them.
const (
	userIstio   = "1337:1337"
	userNobody  = "65534:65534"
	userNonroot = "65532:65532"
)

const usualPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// recipes lists the images that can be built, in the order of their references.
//
// Of what Istio's add-ons name, Grafana and Kiali are not there: what they serve is made by JavaScript builds that
// their Go modules do not hold. Of Jaeger only the web pages are missing.
func recipes() []recipe {
	return []recipe{
		{
			ref:      "docker.io/fortio/fortio:1.75.3",
			programs: []placed{{"fortio", "/usr/bin/fortio"}},
			extra:    []layer.File{{Path: "/var/lib/fortio", Dir: true}, {Path: "/etc/fortio", Dir: true}},
			config: v1.Config{
				Entrypoint: []string{"/usr/bin/fortio"}, Cmd: []string{"server", "-config-dir", "/etc/fortio"},
				WorkingDir: "/var/lib/fortio", Env: []string{usualPath},
			},
			substitute: "Fortio without its scripting command, whose language the Go module proxy does not serve",
		},
		{
			ref: "docker.io/istio/install-cni:" + istioTag + "-distroless",
			programs: []placed{
				{"install-cni", "/usr/local/bin/install-cni"},
				{"istio-cni", "/opt/cni/bin/istio-cni"},
			},
			// Istio looks for iptables-nft and iptables-legacy by name, and falls back to nft.
			packages: []string{"iptables", "ipset", "nftables"},
			extra:    iptablesLinks(),
			config: v1.Config{
				Cmd: []string{"/usr/local/bin/install-cni"}, WorkingDir: "/opt/cni/bin",
				Env: []string{usualPath + ":/opt/cni/bin"},
			},
			substitute: notTheRelease("istio-cni"),
		},
		{
			ref:      "docker.io/istio/pilot:" + istioTag + "-distroless",
			programs: []placed{{"pilot-discovery", "/usr/local/bin/pilot-discovery"}},
			config: v1.Config{
				Entrypoint: []string{"/usr/local/bin/pilot-discovery"}, User: userIstio, Env: []string{usualPath},
			},
			substitute: notTheRelease("istiod"),
		},
		{
			ref:      "docker.io/istio/proxyv2:" + istioTag + "-distroless",
			programs: []placed{{"pilot-agent", "/usr/local/bin/pilot-agent"}},
			files: []copied{{
				"istio", "istio.io/istio", "tools/packaging/common/envoy_bootstrap.json",
				"/var/lib/istio/envoy/envoy_bootstrap_tmpl.json", withoutMetadataDiscovery,
			}},
			packages: []string{"libc6"},
			envoy:    true,
			config: v1.Config{
				Entrypoint: []string{"/usr/local/bin/pilot-agent"}, WorkingDir: "/",
				Env: []string{usualPath, "ISTIO_META_ISTIO_PROXY_SHA=envoy-" + envoyVersion},
			},
			substitute: "upstream Envoy " + envoyVersion +
				" with Istio's pilot-agent as proxyv2: Istio's own Envoy extensions are not in it",
		},
		{
			ref:      "docker.io/istio/ztunnel:" + istioTag + "-distroless",
			programs: []placed{{"nodeproxy", "/usr/local/bin/ztunnel"}},
			config: v1.Config{
				Entrypoint: []string{"/usr/local/bin/ztunnel"}, WorkingDir: "/",
				Env: []string{usualPath, "ISTIO_META_ISTIO_VERSION=" + istioTag},
			},
			substitute: "Go node proxy of this project instead of ztunnel",
		},
		{
			ref:      "docker.io/jaegertracing/jaeger:2.17.0",
			programs: []placed{{"jaeger", "/cmd/jaeger/jaeger-linux"}},
			config: v1.Config{
				Entrypoint: []string{"/cmd/jaeger/jaeger-linux"}, User: "10001:10001",
				Env: []string{usualPath, "JAEGER_LISTEN_HOST=0.0.0.0"},
				ExposedPorts: map[string]struct{}{
					"4317/tcp": {}, "4318/tcp": {}, "9411/tcp": {}, "13133/tcp": {}, "16685/tcp": {}, "16686/tcp": {},
				},
			},
			substitute: "Jaeger " + jaegerVersion + ", the newest that the Go module proxy serves, without its web " +
				"interface, whose pages a JavaScript build makes; traces and queries are all there",
		},
		{
			ref:      "docker.io/mccutchen/go-httpbin:v2.26.0",
			programs: []placed{{"go-httpbin", "/bin/go-httpbin"}},
			config: v1.Config{
				Cmd: []string{"/bin/go-httpbin"}, User: userNonroot, Env: []string{usualPath},
				ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			},
		},
		{
			ref:      "docker.io/prom/prometheus:v3.10.0",
			programs: []placed{{"prometheus", "/bin/prometheus"}},
			files: []copied{{
				"prometheus", "github.com/prometheus/prometheus", "documentation/examples/prometheus.yml",
				"/etc/prometheus/prometheus.yml", nil,
			}},
			extra: []layer.File{{Path: "/prometheus", Dir: true, UID: 65534, GID: 65534, Mode: 0o775}},
			config: v1.Config{
				Entrypoint: []string{"/bin/prometheus"},
				Cmd:        []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"},
				User:       userNobody, WorkingDir: "/prometheus", Env: []string{usualPath},
				ExposedPorts: map[string]struct{}{"9090/tcp": {}},
			},
			substitute: "Prometheus without its web interface, whose pages a JavaScript build makes; " +
				"queries and metrics are all there",
		},
		{
			ref:      "ghcr.io/prometheus-operator/prometheus-config-reloader:v0.89.0",
			programs: []placed{{"prometheus-config-reloader", "/bin/prometheus-config-reloader"}},
			config: v1.Config{
				Entrypoint: []string{"/bin/prometheus-config-reloader"}, User: userNobody, Env: []string{usualPath},
			},
		},
		{
			ref:      "quay.io/metallb/controller:v0.16.1",
			programs: []placed{{"metallb-controller", "/controller"}},
			config:   v1.Config{Entrypoint: []string{"/controller"}, Env: []string{usualPath}},
		},
		{
			// Native mode only: what the FRR mode copies out of this image is not in it.
			ref:      "quay.io/metallb/speaker:v0.16.1",
			programs: []placed{{"metallb-speaker", "/speaker"}},
			config:   v1.Config{Entrypoint: []string{"/speaker"}, Env: []string{usualPath}},
		},
	}
}

// withoutMetadataDiscovery takes the extension istio.workload.BootstrapExtension out of Istio's bootstrap template. The
// agent asks for it in every waypoint, whatever its settings, and Envoy without Istio's extensions ends at once on a
// bootstrap that names it. It only adds the peers' names to telemetry.
func withoutMetadataDiscovery(template []byte) ([]byte, error) {
	condition := []byte("{{- if .metadata_discovery }}")
	if !bytes.Contains(template, condition) {
		return nil, errors.New("the bootstrap template does not ask for metadata discovery where it used to")
	}
	return bytes.ReplaceAll(template, condition, []byte("{{- if false }}")), nil
}

// notTheRelease says which Istio is really inside: the module proxy serves istio.io/istio by commit only.
func notTheRelease(what string) string {
	return what + " of commit " + istioRevision + " of Istio's branch release-1.31, not of the tag " + istioTag
}

// iptablesLinks are what the iptables package's scripts would set up through update-alternatives.
func iptablesLinks() []layer.File {
	var links []layer.File
	for _, name := range []string{
		"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save",
		"ip6tables-restore",
	} {
		family, rest := name[:len("iptables")], name[len("iptables"):]
		if name[:3] == "ip6" {
			family, rest = name[:len("ip6tables")], name[len("ip6tables"):]
		}
		links = append(links, layer.File{Path: "/usr/sbin/" + name, Link: family + "-nft" + rest})
	}
	return links
}

// baseFiles are what every image has: users with names, a resolver's order, and a folder for temporary files.
func baseFiles() []layer.File {
	return []layer.File{
		{Path: "/etc/passwd", Data: []byte(`root:x:0:0:root:/root:/sbin/nologin
istio-proxy:x:1337:1337:istio-proxy:/nonexistent:/sbin/nologin
nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
`)},
		{Path: "/etc/group", Data: []byte("root:x:0:\nistio-proxy:x:1337:\nnonroot:x:65532:\nnobody:x:65534:\n")},
		{Path: "/etc/nsswitch.conf", Data: []byte("hosts: files dns\n")},
		{Path: "/home/nonroot", Dir: true, UID: 65532, GID: 65532, Mode: 0o700},
		{Path: "/root", Dir: true, Mode: 0o700},
		{Path: "/tmp", Dir: true, Mode: 0o1777},
	}
}
