package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// mint gives tokens that name their audience and how many were given.
type mint struct {
	now   func() time.Time
	given int
}

func (m *mint) Token(
	_ context.Context,
	_ *corev1.Pod,
	audience string,
	seconds int64,
) (*authenticationv1.TokenRequestStatus, error) {
	m.given++
	return &authenticationv1.TokenRequestStatus{
		Token: audience + string(
			rune('0'+m.given),
		), ExpirationTimestamp: metav1.NewTime(m.now().Add(time.Duration(seconds) * time.Second)),
	}, nil
}

func TestVolumes(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1000, 0)
	clock := func() time.Time { return now }
	config := map[string]string{"key": "value", "other": "x"}
	from := objects{"config": config, "secret": {"password": "p"}}
	issuer := &mint{now: clock}
	v := &volumes{
		dir:    filepath.Join(dir, "volumes"),
		node:   filepath.Join(dir, "node"),
		from:   from,
		tokens: issuer,
		now:    clock,
	}
	pod := samplePod()
	named := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	pod.Spec.Volumes = []corev1.Volume{
		{
			Name: "all",
			VolumeSource: corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: named("config")},
			},
		},
		{
			Name: "one",
			VolumeSource: corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: named("config"),
					Items:                []corev1.KeyToPath{{Key: "key", Path: "sub/file"}},
				},
			},
		},
		{
			Name: "none",
			VolumeSource: corev1.VolumeSource{
				Secret: &corev1.SecretVolumeSource{SecretName: "nothing", Optional: ptr.To(true)},
			},
		},
		{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/run/x"}}},
		{
			Name: "mixed",
			VolumeSource: corev1.VolumeSource{
				Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{
						ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
							Audience:          "istio-ca",
							Path:              "token",
							ExpirationSeconds: ptr.To(int64(1000)),
						},
					},
					{Secret: &corev1.SecretProjection{LocalObjectReference: named("secret")}},
					{
						DownwardAPI: &corev1.DownwardAPIProjection{
							Items: []corev1.DownwardAPIVolumeFile{
								{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
							},
						},
					},
				}},
			},
		},
	}
	fill := func() {
		t.Helper()
		if err := v.fill(t.Context(), pod, func(string) *corev1.Container { return nil }, nil); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(path, want string) {
		t.Helper()
		got, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	fill()
	holds("volumes/all/key", "value")
	holds("volumes/one/sub/file", "value")
	holds("volumes/mixed/token", "istio-ca1")
	holds("volumes/mixed/password", "p")
	holds("volumes/mixed/labels", "a=\"1\"\nb=\"2\"")
	for _, folder := range []string{"volumes/none", "volumes/empty", "node/var/run/x"} {
		if info, err := os.Stat(filepath.Join(dir, folder)); err != nil || !info.IsDir() {
			t.Errorf("%s: %v", folder, err)
		}
	}
	// What the pod writes itself stays; what follows the API is brought up to date, with a token that nears its end.
	if err := os.WriteFile(filepath.Join(dir, "volumes/empty/own"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	config["key"] = "changed"
	delete(config, "other")
	now = now.Add(799 * time.Second)
	fill()
	holds("volumes/all/key", "changed")
	holds("volumes/mixed/token", "istio-ca1")
	holds("volumes/empty/own", "")
	if _, err := os.Stat(filepath.Join(dir, "volumes/all/other")); err == nil {
		t.Error("a key that is gone is still there")
	}
	now = now.Add(2 * time.Second)
	fill()
	holds("volumes/mixed/token", "istio-ca2")
}

func TestVolumeRefused(t *testing.T) {
	v := &volumes{dir: t.TempDir(), node: t.TempDir(), from: objects{"config": {"k": "v"}}, now: time.Now}
	named := corev1.LocalObjectReference{Name: "config"}
	for what, source := range map[string]corev1.VolumeSource{
		"a kind that is not supported":  {NFS: &corev1.NFSVolumeSource{}},
		"an object that does not exist": {Secret: &corev1.SecretVolumeSource{SecretName: "none"}},
		"a key that does not exist": {
			ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: named,
				Items:                []corev1.KeyToPath{{Key: "x", Path: "x"}},
			},
		},
		"a path that leads out": {
			ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: named,
				Items:                []corev1.KeyToPath{{Key: "k", Path: "../x"}},
			},
		},
	} {
		pod := samplePod()
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}}
		if err := v.fill(t.Context(), pod, func(string) *corev1.Container { return nil }, nil); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
