package mesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/problem"
)

// Istiod is an istiod that is asked what it sends to proxies, by a client that takes the place of one of them: with the
// identity of the proxy's pod, its node ID and its metadata. What it answers is what the proxy would get, byte for
// byte; that a proxy runs it is another question, which only a proxy can answer.
type Istiod struct {
	kube    kubernetes.Interface
	address func() (string, error)

	mu     sync.Mutex
	tokens map[string]token // by namespace/ServiceAccount
}

type token struct {
	value string
	until time.Time
}

// NewIstiod makes a client for an istiod whose TLS port for xDS is at address, such as 127.0.0.1:15012; it is asked for
// at each question.
func NewIstiod(kube kubernetes.Interface, address func() (string, error)) *Istiod {
	return &Istiod{kube: kube, address: address, tokens: map[string]token{}}
}

// WithIstiod asks istiod in place of the proxies, for clusters whose pods run none. See NewIstiod.
func WithIstiod(address func() (string, error)) Option {
	return func(m *Mesh) { m.proxy, m.nodeProxy = NewIstiod(m.kube, address).Proxy, nil }
}

// Proxy takes the place of the proxy in a pod.
func (i *Istiod) Proxy(namespace, pod string) Proxy {
	return &istiodProxy{istiod: i, namespace: namespace, pod: pod}
}

// istiodProxy is what istiod sends to one proxy.
type istiodProxy struct {
	istiod         *Istiod
	namespace, pod string
}

// Connected is true where istiod answers, which Dump shows.
func (p *istiodProxy) Connected(context.Context) (bool, error) { return true, nil }

// Close does nothing: each question has a connection of its own.
func (p *istiodProxy) Close() error { return nil }

// xdsLimit bounds one question to istiod.
const xdsLimit = 15 * time.Second

// Dump implements Proxy.
func (p *istiodProxy) Dump(ctx context.Context) (*Dump, error) {
	resources, err := p.istiod.Resources(ctx, p.namespace, p.pod)
	if err != nil {
		return nil, err
	}
	inline, err := routesWithin(resources.Listeners)
	if err != nil {
		return nil, err
	}
	return DumpOf(resources.Listeners, append(inline, resources.Routes...), resources.Endpoints)
}

// routesWithin are the route configurations inside listeners. Envoy lists them with the others.
func routesWithin(listeners []json.RawMessage) ([]json.RawMessage, error) {
	var found []json.RawMessage
	for _, raw := range listeners {
		listener, err := decode(raw)
		if err != nil {
			return nil, fmt.Errorf("reading a listener: %w", err)
		}
		for _, chain := range filterChains(listener) {
			for _, filter := range chain.get("filters").list() {
				inline := filter.get("typed_config", "route_config")
				if !inline.exists() {
					continue
				}
				route, err := json.Marshal(inline.value)
				if err != nil {
					return nil, fmt.Errorf("reading the routes of a listener: %w", err)
				}
				found = append(found, route)
			}
		}
	}
	return found, nil
}

// Resources are what istiod sends to one proxy, in protojson, in istiod's order.
type Resources struct {
	Clusters, Listeners, Routes, Endpoints []json.RawMessage
}

// Resources asks for everything that istiod sends to the proxy in a pod.
func (i *Istiod) Resources(ctx context.Context, namespace, pod string) (Resources, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, xdsLimit, fmt.Errorf("istiod did not answer within %s", xdsLimit))
	defer cancel()
	object, err := i.kube.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return Resources{}, fmt.Errorf("reading pod %s/%s: %w", namespace, pod, err)
	}
	conn, err := i.connect(ctx, namespace)
	if err != nil {
		return Resources{}, err
	}
	defer func() { _ = conn.Close() }()
	bearer, err := i.bearer(ctx, object)
	if err != nil {
		return Resources{}, err
	}
	node, err := nodeOf(object)
	if err != nil {
		return Resources{}, fmt.Errorf("describing the proxy in pod %s/%s to istiod: %w", namespace, pod, err)
	}
	found, err := ask(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+bearer), conn, node)
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return Resources{},
			problem.New(problem.IstiodDisconnected, err, "istiod does not send the configuration of pod %s/%s",
				namespace, pod)
	}
	return found, nil
}

// connect trusts the certificate that istiod puts into every namespace, which is where proxies have it from.
func (i *Istiod) connect(ctx context.Context, namespace string) (*grpc.ClientConn, error) {
	address, err := i.address()
	if err != nil {
		return nil, err
	}
	const rootName, rootKey = "istio-ca-root-cert", "root-cert.pem"
	root, err := i.kube.CoreV1().ConfigMaps(namespace).Get(ctx, rootName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading istiod's root certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(root.Data[rootKey])) {
		return nil, fmt.Errorf("ConfigMap %s/%s holds no certificate", namespace, rootName)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		RootCAs: roots, ServerName: "istiod.istio-system.svc", MinVersion: tls.VersionTLS12,
	})))
	if err != nil {
		return nil, fmt.Errorf("connecting to istiod at %s: %w", address, err)
	}
	return conn, nil
}

// tokenLife is the shortest that the API server gives.
const tokenLife = 10 * time.Minute

// bearer gives a token for the ServiceAccount of a pod, as the kubelet would mount it for the proxy.
func (i *Istiod) bearer(ctx context.Context, pod *corev1.Pod) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	key := pod.Namespace + "/" + pod.Spec.ServiceAccountName
	if known := i.tokens[key]; time.Now().Before(known.until) {
		return known.value, nil
	}
	seconds := int64(tokenLife / time.Second)
	answer, err := i.kube.CoreV1().ServiceAccounts(pod.Namespace).
		CreateToken(ctx, pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}, ExpirationSeconds: &seconds},
		}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for a token of ServiceAccount %s: %w", key, err)
	}
	i.tokens[key] = token{answer.Status.Token, time.Now().Add(tokenLife / 2)}
	return answer.Status.Token, nil
}
