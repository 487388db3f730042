package embedded

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"

	"ambientlab/internal/atomicfile"
)

// validity of every certificate. A lab is not meant to live longer; one that does is deleted and created again.
const validity = 365 * 24 * time.Hour

// authority signs what the components show each other.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (e *Embedded) pki(file string) string { return filepath.Join(e.dir, "pki", file) }

// identities are the clients and servers that get a certificate. Groups decide what the API server lets them do: the
// components of Kubernetes have roles of their own, and what would run in pods gets the identity of its ServiceAccount,
// and so the rights that its chart gives it, no more.
func identities() map[string]pkix.Name {
	account := func(namespace, name string) pkix.Name {
		return pkix.Name{
			CommonName: "system:serviceaccount:" + namespace + ":" + name,
			Organization: []string{
				"system:serviceaccounts", "system:serviceaccounts:" + namespace,
				"system:authenticated",
			},
		}
	}
	return map[string]pkix.Name{
		etcd:              {CommonName: "etcd"},
		apiServer:         {CommonName: "kube-apiserver"},
		admin:             {CommonName: "ambientlab", Organization: []string{"system:masters"}},
		controllerManager: {CommonName: "system:kube-controller-manager"},
		scheduler:         {CommonName: "system:kube-scheduler"},
		// it is every node's kubelet
		podRunner:     {CommonName: podRunner, Organization: []string{"system:masters"}},
		kubeletClient: {CommonName: kubeletClient},
		istiod:        account("istio-system", "istiod"),
		metallb:       account("metallb-system", "controller"),
	}
}

// admin is the user's own identity.
const admin = "admin"

// makePKI makes the authority, the certificates and the key that signs ServiceAccount tokens.
func (e *Embedded) makePKI(now time.Time) error {
	if err := os.MkdirAll(filepath.Join(e.dir, "pki"), 0o700); err != nil {
		return fmt.Errorf("making certificates: %w", err)
	}
	ca, err := e.makeAuthority()
	if err != nil {
		return fmt.Errorf("making the certificate authority: %w", err)
	}
	for name, subject := range identities() {
		if err := e.issue(ca, name, subject, now); err != nil {
			return fmt.Errorf("making the certificate of %s: %w", name, err)
		}
	}
	if _, err := e.makeKey(accountsKey); err != nil {
		return fmt.Errorf("making the key for ServiceAccount tokens: %w", err)
	}
	return nil
}

const (
	authorityName = "ca"
	accountsKey   = "service-accounts"
)

func (e *Embedded) makeAuthority() (*authority, error) {
	key, err := e.makeKey(authorityName)
	if err != nil {
		return nil, err
	}
	// Its term is ten years, client-go's choice; what it signs ends before.
	root, err := cert.NewSelfSignedCACert(cert.Config{CommonName: Provider + "-" + e.opts.Name}, key)
	if err != nil {
		return nil, err
	}
	return &authority{root, key}, e.writeCertificate(authorityName, root.Raw)
}

func (e *Embedded) makeKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	raw, err := keyutil.MarshalPrivateKeyToPEM(key)
	if err != nil {
		return nil, err
	}
	return key, keyutil.WriteKey(e.pki(name+".key"), raw) // mode 0600
}

func (e *Embedded) writeCertificate(name string, der []byte) error {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	raw, err := cert.EncodeCertificates(certificate)
	if err != nil {
		return err
	}
	return atomicfile.Write(e.pki(name+".crt"), raw, 0o600)
}

func (e *Embedded) issue(ca *authority, name string, subject pkix.Name, now time.Time) error {
	key, err := e.makeKey(name)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity), // an hour for clocks that were set back
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if name == etcd || name == apiServer || name == podRunner {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(serviceIP)}
		template.DNSNames = []string{
			"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local",
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	return e.writeCertificate(name, der)
}

// entries are what a kubeconfig holds for an identity. embed puts the keys themselves in, so that the file stands
// alone.
func (e *Embedded) entries(s *state, name, identity string) (*api.Config, error) {
	read := func(file string) []byte {
		content, err := os.ReadFile(e.pki(file))
		if err != nil {
			return nil
		}
		return content
	}
	config := api.NewConfig()
	config.Clusters[name] = &api.Cluster{Server: s.server(), CertificateAuthorityData: read(authorityName + ".crt")}
	config.AuthInfos[name] = &api.AuthInfo{
		ClientCertificateData: read(identity + ".crt"),
		ClientKeyData:         read(identity + ".key"),
	}
	config.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	if len(config.AuthInfos[name].ClientKeyData) == 0 || len(config.Clusters[name].CertificateAuthorityData) == 0 {
		return nil, fmt.Errorf("the certificate of %s is not in %s", identity, e.pki(""))
	}
	return config, nil
}

// writeKubeconfigs writes the one that each component uses.
func (e *Embedded) writeKubeconfigs(s *state) error {
	for _, identity := range []string{admin, controllerManager, scheduler, podRunner, istiod, metallb} {
		config, err := e.entries(s, e.ContextName(), identity)
		if err != nil {
			return err
		}
		raw, err := clientcmd.Write(*config)
		if err != nil {
			return fmt.Errorf("writing the kubeconfig of %s: %w", identity, err)
		}
		if err := atomicfile.Write(e.componentKubeconfig(identity), raw, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (e *Embedded) componentKubeconfig(identity string) string {
	return filepath.Join(e.dir, identity+".kubeconfig")
}
