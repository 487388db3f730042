//go:build e2e

package source

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEnvoyTakesTheBootstrap starts the agent of the proxyv2 image as a waypoint and as a gateway, with no istiod to be
// found, until Envoy's admin port answers: upstream Envoy takes what Istio's template gives it.
func TestEnvoyTakesTheBootstrap(t *testing.T) {
	b, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	image, err := b.Image(t.Context(), "docker.io/istio/proxyv2:1.31.4-distroless")
	if err != nil {
		t.Fatal(err)
	}
	load(t, image)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeRoot(t, filepath.Join(dir, "root-cert.pem"))
	// A token of no algorithm and no claims: it only has to be there.
	if err := os.WriteFile(filepath.Join(dir, "istio-token"), []byte("eyJhbGciOiJub25lIn0.e30.x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"waypoint", "router"} {
		t.Run(role, func(t *testing.T) {
			args := []string{
				"run", "--detach", "--network=none", "--user=1337:1337", "--read-only",
				"--volume=" + dir + "/root-cert.pem:/var/run/secrets/istio/root-cert.pem:ro",
				"--volume=" + dir + "/istio-token:/var/run/secrets/tokens/istio-token:ro",
			}
			for _, folder := range []string{
				"/tmp", "/etc/istio/proxy", "/var/lib/istio/data", "/var/run/secrets/workload-spiffe-uds",
				"/var/run/secrets/workload-spiffe-credentials", "/var/run/secrets/credential-uds",
			} {
				args = append(args, "--tmpfs="+folder+":mode=1777")
			}
			for _, variable := range []string{
				"POD_NAME=p", "POD_NAMESPACE=default", "INSTANCE_IP=127.0.0.1", "SERVICE_ACCOUNT=s",
				"ISTIO_META_CLUSTER_ID=Kubernetes",
			} {
				args = append(args, "--env="+variable)
			}
			args = append(args, image.Ref, "proxy", role, "--domain=default.svc.cluster.local",
				"--proxyLogLevel=warning")
			out, err := exec.CommandContext(t.Context(), "docker", args...).Output()
			if err != nil {
				t.Fatal(err)
			}
			id := strings.TrimSpace(string(out))
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
				defer cancel()
				_ = exec.CommandContext(ctx, "docker", "rm", "--force", id).Run()
			})
			waitForEnvoy(t, id)
		})
	}
}

func waitForEnvoy(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		out, err := exec.CommandContext(ctx, "docker", "exec", id, "/usr/local/bin/pilot-agent", "request", "GET",
			"server_info").Output()
		if err == nil && strings.Contains(string(out), envoyVersion) {
			return
		}
		select {
		case <-ctx.Done():
			logs, _ := exec.CommandContext(t.Context(), "docker", "logs", "--tail=20", id).CombinedOutput()
			t.Fatalf("Envoy did not answer; the agent says\n%s", logs)
		case <-ticker.C:
		}
	}
}

func writeRoot(t *testing.T, path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"cluster.local"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		t.Fatal(err)
	}
}
