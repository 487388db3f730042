package embedded

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// The components, by which their logs and records are called.
const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	podRunner         = "podrunner"
	istiod            = "istiod"
	metallb           = "metallb-controller"
)

// componentNames gives every component in the order in which they are started.
func componentNames() []string {
	return append(baseComponents(), metallb, istiod)
}

// baseComponents are what makes a cluster; the others are part of what is installed on it.
func baseComponents() []string {
	return []string{etcd, apiServer, controllerManager, scheduler, podRunner}
}

func optional(name string) bool { return !slices.Contains(baseComponents(), name) }

// program names what a component runs.
func program(component string) string {
	switch component {
	case istiod:
		return "pilot-discovery"
	case metallb:
		return "metallb-controller-loopback"
	}
	return component
}

// Address ranges. Pods and Services have addresses as in any cluster, though nothing carries packets to them; the
// nodes' are of a range reserved for documentation (RFC 5737, TEST-NET-2), since no machine has them.
const (
	serviceRange = "10.96.0.0/16"
	serviceIP    = "10.96.0.1"
	podRange     = "10.244.0.0/16"
)

// process is a component and how to tell that it is ready.
type process struct {
	spec  spec
	ready func(context.Context) error
}

// component describes one of the base components.
func (e *Embedded) component(s *state, name, path string) process {
	own := func(arguments ...string) process {
		return process{
			spec: spec{
				Name: name, Path: path, Args: arguments, Env: e.environment(),
				Dir: filepath.Join(e.dir, "run"),
			},
			ready: func(context.Context) error { return nil },
		}
	}
	client := func(arguments ...string) process {
		c := own(append([]string{"--kubeconfig=" + e.componentKubeconfig(name)}, arguments...)...)
		c.spec.Server = s.server()
		return c
	}
	switch name {
	case etcd:
		c := own(
			"--name=lab", "--data-dir="+filepath.Join(e.dir, "etcd"),
			"--listen-client-urls="+s.address("https", portEtcd),
			"--advertise-client-urls="+s.address("https", portEtcd),
			"--listen-peer-urls="+s.address("https", portEtcdPeer),
			"--initial-advertise-peer-urls="+s.address("https", portEtcdPeer),
			"--initial-cluster=lab="+s.address("https", portEtcdPeer),
			// Loopback is open to every user of the machine, and etcd holds every Secret.
			"--client-cert-auth", "--trusted-ca-file="+e.pki("ca.crt"), "--cert-file="+e.pki("etcd.crt"),
			"--key-file="+e.pki("etcd.key"),
			"--peer-client-cert-auth", "--peer-trusted-ca-file="+e.pki("ca.crt"), "--peer-cert-file="+e.pki("etcd.crt"),
			"--peer-key-file="+e.pki("etcd.key"),
			// After a power failure a lab is created again; waiting for the disk at each write is what makes etcd slow
			// on a laptop.
			"--unsafe-no-fsync", "--log-level=warn",
		)
		c.ready = func(ctx context.Context) error { return e.healthy(ctx, s.address("https", portEtcd)+"/health") }
		return c
	case apiServer:
		c := own(e.apiServerArguments(s)...)
		// Otherwise an API server that starts, and takes in CRDs, spends a fifth of its processor time on garbage
		// collection. The limit is about what it uses in any case.
		c.spec.Env = append(c.spec.Env, "GOGC=400", "GOMEMLIMIT=700MiB")
		c.ready = func(ctx context.Context) error { return e.healthy(ctx, s.server()+"/readyz") }
		return c
	case controllerManager:
		c := client(
			"--authentication-kubeconfig=", "--leader-elect=false", "--secure-port=0",
			// Each of its forty controllers fetches a token of its own first. At the usual 20 requests a second, which
			// are for sparing an API server that many share, that alone takes seconds.
			"--kube-api-qps=1000", "--kube-api-burst=1000",
			"--use-service-account-credentials", "--service-account-private-key-file="+e.pki(accountsKey+".key"),
			"--root-ca-file="+e.pki("ca.crt"),
			"--cluster-signing-cert-file="+e.pki("ca.crt"), "--cluster-signing-key-file="+e.pki("ca.key"),
			"--allocate-node-cidrs", "--cluster-cidr="+podRange, "--service-cluster-ip-range="+serviceRange,
			"--controllers=*,-"+strings.Join(unusedControllers(), ",-"),
		)
		c.ready = e.accountsServed
		return c
	case scheduler:
		return client("--leader-elect=false", "--secure-port=0")
	default:
		c := own("run", filepath.Join(e.dir, runnerConfig))
		c.spec.Server, c.spec.Input = s.server(), e.runnerInput()
		c.ready = func(ctx context.Context) error {
			return e.healthyFor(ctx, kubeletClient, s.address("https", portKubelet)+"/healthz")
		}
		return c
	}
}

// unusedControllers have nothing to do in a lab without volumes, devices, metrics and certificate requests, and each
// watches several kinds of objects. The last one would compute the schemas of all CRDs in order to check the types of
// the Gateway API's ValidatingAdmissionPolicy.
func unusedControllers() []string {
	return []string{
		"persistentvolume-attach-detach-controller", "persistentvolume-binder-controller",
		"persistentvolume-expander-controller", "persistentvolume-protection-controller",
		"persistentvolumeclaim-protection-controller", "volumeattributesclass-protection-controller",
		"ephemeral-volume-controller", "resourceclaim-controller", "device-taint-eviction-controller",
		"resourcepoolstatusrequest-controller", "podgroup-protection-controller",
		"certificatesigningrequest-approving-controller", "certificatesigningrequest-cleaner-controller",
		"certificatesigningrequest-signing-controller", "podcertificaterequest-cleaner-controller",
		"horizontal-pod-autoscaler-controller", "ttl-controller", "validatingadmissionpolicy-status-controller",
	}
}

func (e *Embedded) apiServerArguments(s *state) []string {
	return []string{
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", s.Ports[portAPI]),
		// Endpoints may not be on loopback, and no pod could reach it anyway.
		"--endpoint-reconciler-type=none",
		"--etcd-servers=" + s.address("https", portEtcd),
		"--etcd-cafile=" + e.pki("ca.crt"), "--etcd-certfile=" + e.pki("etcd.crt"),
		"--etcd-keyfile=" + e.pki("etcd.key"),
		"--tls-cert-file=" + e.pki(apiServer+".crt"), "--tls-private-key-file=" + e.pki(apiServer+".key"),
		"--client-ca-file=" + e.pki("ca.crt"),
		"--cert-dir=" + filepath.Join(e.dir, "run"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + e.pki(accountsKey+".key"),
		"--service-account-signing-key-file=" + e.pki(accountsKey+".key"),
		"--service-cluster-ip-range=" + serviceRange,
		// The pod runner serves exec, logs and port-forward, at the address of this type that it gives each node.
		"--kubelet-client-certificate=" + e.pki(kubeletClient+".crt"),
		"--kubelet-client-key=" + e.pki(kubeletClient+".key"),
		"--kubelet-certificate-authority=" + e.pki("ca.crt"), "--kubelet-preferred-address-types=InternalDNS",
		"--authorization-mode=Node,RBAC", "--anonymous-auth=false", "--allow-privileged", "--profiling=false",
		// A lab has one user, and few clients that do not crowd each other out.
		"--enable-priority-and-fairness=false",
	}
}

// environment is the few variables that a component needs. They do not depend on the shell that starts it, so that
// another shell does not restart a component.
func (e *Embedded) environment() []string {
	return []string{
		"HOME=" + filepath.Join(e.dir, "run"), "TMPDIR=" + filepath.Join(e.dir, "tmp"),
		"PATH=/usr/bin:/bin",
	}
}

// healthy asks a component's health endpoint as the administrator.
func (e *Embedded) healthy(ctx context.Context, url string) error {
	return e.healthyFor(ctx, admin, url)
}

// healthyFor asks as another identity.
func (e *Embedded) healthyFor(ctx context.Context, identity, url string) error {
	pair, err := tls.LoadX509KeyPair(e.pki(identity+".crt"), e.pki(identity+".key"))
	if err != nil {
		return err
	}
	root, err := os.ReadFile(e.pki("ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(root)
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
		DisableKeepAlives: true,
	}
	return answers(ctx, transport, url)
}

const answerLimit = 3 * time.Second

// answers tells whether an HTTP endpoint answers 200.
func answers(ctx context.Context, transport http.RoundTripper, url string) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}

// accountsServed tells whether the controller manager works: pods cannot be made before it has given the namespace its
// ServiceAccount and root certificate.
func (e *Embedded) accountsServed(ctx context.Context) error {
	config, err := e.RESTConfig(ctx)
	if err != nil {
		return err
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if _, err := kube.CoreV1().ServiceAccounts(metav1.NamespaceDefault).
		Get(ctx, "default", metav1.GetOptions{}); err != nil {
		return err
	}
	_, err = kube.CoreV1().ConfigMaps(metav1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	return err
}
