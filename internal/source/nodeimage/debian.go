package nodeimage

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"ambientlab/internal/command"
	"ambientlab/internal/problem"
)

// debianSuite is the Debian release of the node image.
const debianSuite = "bookworm"

// debianPackages are what a kind node needs in addition to Debian's minimal base: kind's own images/base/Dockerfile
// lists them with the reasons. Left out of its list are NFS, iSCSI and fuse-overlayfs, which the lab never uses; dbus
// lets systemctl and the kubelet's systemd cgroup driver talk to systemd; runc comes from Debian, since its cgo build
// is not wanted here.
func debianPackages() []string {
	return []string{
		"systemd", "dbus", "conntrack", "iptables", "nftables", "iproute2", "ethtool", "util-linux", "mount", "kmod",
		"libseccomp2", "pigz", "e2fsprogs", "procps", "jq", "curl", "ca-certificates", "bash", "runc",
	}
}

// prunedPaths are removed from the root file system: what a node does not need (documentation, translations, package
// lists), what the host left in it, and, as in kind's Dockerfile, the systemd units that make no sense in a container.
func prunedPaths() []string {
	return []string{
		"usr/share/man/*", "usr/share/info/*", "usr/share/locale/*", "usr/share/lintian", "usr/share/bug",
		"usr/share/doc-base", "usr/share/zsh", "usr/share/bash-completion", "usr/share/gcc",
		"usr/lib/x86_64-linux-gnu/gconv/[!g]*", "usr/lib/aarch64-linux-gnu/gconv/[!g]*", "usr/lib/udev/hwdb.d",
		"var/cache/apt/*", "var/cache/debconf/*", "var/cache/ldconfig/*", "var/lib/apt/lists/*", "var/log/*",
		"var/lib/dpkg/*-old", "debootstrap", "tmp/*", "etc/resolv.conf", "etc/hostname", "etc/machine-id",
		"usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service",
		"usr/lib/systemd/system/multi-user.target.wants/*",
		"etc/systemd/system/*.wants/*",
		"usr/lib/systemd/system/local-fs.target.wants/*",
		"usr/lib/systemd/system/sockets.target.wants/*udev*",
		"usr/lib/systemd/system/sockets.target.wants/*initctl*",
		"usr/lib/systemd/system/basic.target.wants/*",
	}
}

// Package is an installed Debian package.
type Package struct {
	Name, Version, Architecture string
	// Source is the source package's name if it differs from Name.
	Source string
}

// rootfs returns the Debian root file system, which is made once for each list of packages. It needs root: debootstrap
// makes files of several owners and runs the scripts of packages.
func rootfs(ctx context.Context, cacheDir string, progress func(string)) (string, error) {
	key := rootfsKey()
	dir := filepath.Join(cacheDir, "rootfs-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("looking for the cached root file system: %w", err)
	}
	if err := checkHost(); err != nil {
		return "", err
	}
	debootstrap, err := findDebootstrap(ctx, progress)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	tmp, err := os.MkdirTemp(cacheDir, "rootfs-tmp-")
	if err != nil {
		return "", fmt.Errorf("making the root file system: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	progress("installing Debian " + debianSuite + " with debootstrap")
	include := strings.Join(debianPackages(), ",")
	if _, err := run(ctx, debootstrap, "--variant=minbase", "--include="+include, debianSuite, tmp); err != nil {
		return "", problem.New(problem.BuildFailed, err, "debootstrap could not install Debian %s", debianSuite)
	}
	if err := prune(tmp); err != nil {
		return "", fmt.Errorf("cleaning the root file system: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		if _, statErr := os.Stat(dir); statErr == nil {
			return dir, nil // Another run has made the same one.
		}
		return "", fmt.Errorf("keeping the root file system: %w", err)
	}
	return dir, nil
}

func rootfsKey() string {
	h := sha256.New()
	fmt.Fprintln(h, debianSuite, runtime.GOARCH, debianPackages(), prunedPaths())
	return hex.EncodeToString(h.Sum(nil))[:24]
}

func checkHost() error {
	if runtime.GOOS != "linux" {
		return problem.New(problem.HostUnsupported, nil,
			"a node image can be built from source only on Linux, and this is %s", runtime.GOOS).
			With("Make the bundle from registries instead (-from=registry), or on a Linux machine.")
	}
	if os.Geteuid() != 0 {
		return problem.New(problem.HostUnsupported, nil,
			"building the node image from source needs root, for debootstrap").
			With("Run the target as root, or make the bundle from registries instead (-from=registry).")
	}
	return nil
}

func findDebootstrap(ctx context.Context, progress func(string)) (string, error) {
	if path, err := exec.LookPath("debootstrap"); err == nil {
		return path, nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return "", problem.New(problem.ToolMissing, err,
			"debootstrap is not installed, and there is no apt-get to install it")
	}
	progress("installing debootstrap")
	for _, args := range [][]string{
		{"update", "-q"},
		{"install", "-q", "-y", "--no-install-recommends", "debootstrap"},
	} {
		if _, err := run(ctx, apt, args...); err != nil {
			return "", problem.New(problem.ToolMissing, err, "debootstrap could not be installed")
		}
	}
	return exec.LookPath("debootstrap")
}

// prune removes prunedPaths, and the documentation of packages except for the copyright files.
func prune(root string) error {
	for _, pattern := range prunedPaths() {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, path := range found {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return filepath.WalkDir(filepath.Join(root, "usr/share/doc"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "copyright" {
			return err
		}
		return os.Remove(path)
	})
}

// installed lists the Debian packages of a root file system, from dpkg's own database.
func installed(root string) ([]Package, error) {
	f, err := os.Open(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, fmt.Errorf("reading the Debian packages: %w", err)
	}
	defer f.Close()
	return parseStatus(f)
}

func parseStatus(r io.Reader) ([]Package, error) {
	var out []Package
	var p Package
	flush := func() {
		if p.Name != "" {
			out = append(out, p)
		}
		p = Package{}
	}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		field, value, _ := strings.Cut(scanner.Text(), ": ")
		switch field {
		case "":
			flush()
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Architecture":
			p.Architecture = value
		case "Source":
			p.Source, _, _ = strings.Cut(value, " ")
		}
	}
	flush()
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("reading the Debian packages: %w", err)
	}
	return out, nil
}

// run runs a program and returns its standard output.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	return command.Run(ctx, command.Command{Name: name, Args: args})
}
