package nodeimage

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ambientlab/internal/problem"
	"ambientlab/internal/upstream/gomod"
)

func TestSandboxImage(t *testing.T) {
	const config = "[plugins.x]\n  # use fixed sandbox image\n  sandbox_image = \"registry.k8s.io/pause:3.10\"\n  " +
		"other = \"sandbox_image\"\n"
	got, err := withSandbox([]byte(config), "registry.k8s.io/pause:3.10.2")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(config, "3.10", "3.10.2", 1); string(got) != want {
		t.Errorf("config is\n%s\nwant\n%s", got, want)
	}
	if _, err := withSandbox([]byte("version = 2\n"), "p"); err == nil {
		t.Error("a config without sandbox_image gave no error")
	}
}

// The manifest's image and the one put into the node image must be the same, or no pod gets a network.
func TestManifestNamesTheImageInside(t *testing.T) {
	manifest, err := ownFiles.ReadFile("files/default-cni.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"image: " + nodenetRef + "\n", "would you kindly template this file",
		"would you kindly patch this file",
	} {
		if !bytes.Contains(manifest, []byte(want)) {
			t.Errorf("the CNI manifest lacks %q", want)
		}
	}
}

// kind's files are taken from the module that go.mod pins: a newer kind that lays them out differently fails here.
func TestKindFiles(t *testing.T) {
	dir, err := gomod.New("").Dir(t.Context(), "sigs.k8s.io/kind")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := kindFiles(dir, "registry.k8s.io/pause:9")
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	for _, e := range entries {
		modes[e.Path] = e.Mode
		if e.Path == "etc/containerd/config.toml" {
			// What files/oom-score.sh looks for, and the sandbox image.
			for _, want := range []string{
				"restrict_oom_score_adj = false",
				`sandbox_image = "registry.k8s.io/pause:9"`,
			} {
				if !bytes.Contains(e.Data, []byte(want)) {
					t.Errorf("kind's containerd config lacks %q", want)
				}
			}
		}
	}
	for path, mode := range map[string]int64{
		"usr/local/bin/entrypoint":                             0o755,
		"kind/bin/mount-product-files.sh":                      0o755,
		"etc/containerd/config.toml":                           0o644,
		"etc/systemd/system/kubelet.service":                   0o644,
		"etc/systemd/system/kubelet.service.d/10-kubeadm.conf": 0o644,
		"etc/systemd/system/undo-mount-hacks.service":          0o644,
		"etc/systemd/system/containerd.service":                0o644,
	} {
		if modes[path] != mode {
			t.Errorf("%s has the mode %o, want %o", path, modes[path], mode)
		}
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus(strings.NewReader(`Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9
Description: GNU C Library
 Contains: nothing
 .
 Version: 9

Package: curl
Source: curl (7.88.1-10)
Version: 7.88.1-10+deb12u14
Architecture: amd64
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Package{
		{Name: "libc6", Version: "2.36-9", Architecture: "amd64", Source: "glibc"},
		{Name: "curl", Version: "7.88.1-10+deb12u14", Architecture: "amd64", Source: "curl"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("packages are %+v, want %+v", got, want)
	}
}

func TestPruneKeepsCopyright(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{
		"usr/share/doc/curl/copyright", "usr/share/doc/curl/changelog.gz", "usr/share/man/man1/curl.1.gz",
		"usr/share/locale/de/x.mo", "etc/resolv.conf", "etc/systemd/system/getty.target.wants/getty.service",
		"usr/bin/curl",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(root); err != nil {
		t.Fatal(err)
	}
	var left []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left = append(left, strings.TrimPrefix(filepath.ToSlash(path), filepath.ToSlash(root)+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"usr/bin/curl", "usr/share/doc/curl/copyright"}; !slices.Equal(left, want) {
		t.Errorf("left is %v, want %v", left, want)
	}
}

func TestUnsupportedHostIsAProblem(t *testing.T) {
	if runtime.GOOS == "linux" && os.Geteuid() == 0 {
		if err := checkHost(); err != nil {
			t.Errorf("root on Linux: %v", err)
		}
		return
	}
	if err := checkHost(); !problem.Is(err, problem.HostUnsupported) {
		t.Errorf("error is %v, want the problem %s", err, problem.HostUnsupported.ID)
	}
}

func TestDynamicProgramIsRefused(t *testing.T) {
	if runtime.GOOS != "linux" {
		return
	}
	if err := mustBeStatic("/bin/sh"); !problem.Is(err, problem.BuildFailed) {
		t.Errorf("a dynamic program gave %v, want the problem %s", err, problem.BuildFailed.ID)
	}
}
