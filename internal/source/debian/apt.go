package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"ambientlab/internal/command"
	"ambientlab/internal/filelock"
)

// keyring holds the keys of the Debian archive. Its package, debian-archive-keyring, is part of every Debian.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Download fetches packages and everything that they depend on, checks them against Debian's signed lists, and returns
// them in the order of their names. It needs apt-get and dpkg-deb, but not root.
func Download(ctx context.Context, packages []string, opts Options) ([]Package, error) {
	opts = opts.withDefaults()
	// apt does not wait for another apt that holds its locks.
	lock, err := filelock.Wait(ctx, filepath.Join(opts.CacheDir, "apt.lock"), func() {
		opts.Progress("waiting for another download of packages to end")
	})
	if err != nil {
		return nil, fmt.Errorf("preparing apt: %w", err)
	}
	defer lock.Unlock()
	a, err := newApt(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("preparing apt: %w", err)
	}
	if opts.Refresh || !a.hasLists() {
		opts.Progress("reading the package lists of " + opts.Suite)
		if _, err := a.run(ctx, "apt-get", "update"); err != nil {
			return nil, fmt.Errorf("reading Debian's package lists: %w", err)
		}
	}
	files, err := a.install(ctx, packages, opts)
	if err != nil && !opts.Refresh {
		// The lists can name versions that the mirror no longer has.
		if _, updateErr := a.run(ctx, "apt-get", "update"); updateErr == nil {
			files, err = a.install(ctx, packages, opts)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("fetching Debian packages: %w", err)
	}
	return files, nil
}

// apt is an apt with a root folder of its own, in which nothing is installed.
type apt struct {
	root   string
	config string
}

func newApt(ctx context.Context, opts Options) (*apt, error) {
	root, err := filepath.Abs(filepath.Join(opts.CacheDir, "apt", opts.Suite+"-"+opts.Arch))
	if err != nil {
		return nil, err
	}
	a := &apt{root: root, config: filepath.Join(root, "apt.conf")}
	for _, dir := range []string{
		"etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
		"var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg",
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, err
		}
	}
	// The settings with which the host reaches its mirrors, such as a proxy, apply here too.
	acquire, err := a.run(ctx, "apt-config", "dump", "--format", "%F \"%v\";%n", "Acquire")
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`%sDir "%s";
Dir::State::status "%s";
APT::Architecture "%s";
APT::Architectures { "%[4]s"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
`, acquire, root, filepath.Join(root, "var/lib/dpkg/status"), opts.Arch)
	security := strings.TrimSuffix(opts.Mirror, "/") + "-security"
	if opts.Mirror == Mirror {
		security = securityMirror
	}
	sources := fmt.Sprintf("deb [signed-by=%[1]s] %[2]s %[3]s main\ndeb [signed-by=%[1]s] %[4]s %[3]s-security main\n",
		keyring, opts.Mirror, opts.Suite, security)
	for name, content := range map[string]string{
		"apt.conf": config, "etc/apt/sources.list": sources, "var/lib/dpkg/status": "",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *apt) hasLists() bool {
	lists, err := filepath.Glob(filepath.Join(a.root, "var/lib/apt/lists/*_Packages*"))
	return err == nil && len(lists) > 0
}

// install downloads what installing the packages on an empty system would install.
func (a *apt) install(ctx context.Context, packages []string, opts Options) ([]Package, error) {
	words := append([]string{"--yes", "--print-uris", "install"}, packages...)
	out, err := a.run(ctx, "apt-get", words...)
	if err != nil {
		return nil, err
	}
	wanted := parseURIs(out)
	if len(wanted) > 0 {
		opts.Progress(fmt.Sprintf("fetching %d packages for %s", len(wanted), strings.Join(packages, ", ")))
	}
	if _, err := a.run(ctx, "apt-get",
		append([]string{"--yes", "--download-only", "install"}, packages...)...); err != nil {
		return nil, err
	}
	// --print-uris leaves out files that are in the cache. The simulation lists every package.
	out, err = a.run(ctx, "apt-get", append([]string{"--simulate", "install"}, packages...)...)
	if err != nil {
		return nil, err
	}
	var installed []Package
	for _, p := range parsePlan(out) {
		p.File = filepath.Join(a.root, "var/cache/apt/archives", p.fileName())
		p.SHA256, err = a.checksum(ctx, p)
		if err != nil {
			return nil, err
		}
		installed = append(installed, p)
	}
	slices.SortFunc(installed, func(x, y Package) int { return strings.Compare(x.Name, y.Name) })
	return installed, nil
}

// fileName is the name of the package's file in apt's cache. apt escapes the colon of an epoch.
func (p Package) fileName() string {
	return fmt.Sprintf("%s_%s_%s.deb", p.Name, strings.ReplaceAll(p.Version, ":", "%3a"), p.Architecture)
}

// checksum is the package's checksum in the signed lists.
func (a *apt) checksum(ctx context.Context, p Package) (string, error) {
	out, err := a.run(ctx, "apt-cache", "show", p.Name+"="+p.Version)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		if sum, ok := strings.CutPrefix(line, "SHA256: "); ok {
			return strings.TrimSpace(sum), nil
		}
	}
	return "", fmt.Errorf("no checksum for %s %s in the lists", p.Name, p.Version)
}

// parseURIs reads the names of the files that apt would fetch from lines such as: 'URI' name size checksum.
func parseURIs(out []byte) []string {
	var names []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) >= 3 && strings.HasPrefix(fields[0], "'") {
			names = append(names, fields[1])
		}
	}
	return names
}

// parsePlan reads what apt would install from lines of its simulation: Inst NAME (VERSION ORIGIN [ARCH]).
func parsePlan(out []byte) []Package {
	var packages []Package
	scanner := bufio.NewScanner(bytes.NewReader(out))
	for scanner.Scan() {
		rest, ok := strings.CutPrefix(scanner.Text(), "Inst ")
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(rest, " ")
		_, rest, ok = strings.Cut(rest, "(")
		if !ok {
			continue
		}
		version, rest, _ := strings.Cut(rest, " ")
		_, arch, _ := strings.Cut(rest, "[")
		arch, _, _ = strings.Cut(arch, "]")
		packages = append(packages, Package{Name: name, Version: version, Architecture: arch})
	}
	return packages
}

// run runs one of apt's programs with the settings of a.
func (a *apt) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	c := command.Command{Env: []string{"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}, Name: name, Args: args}
	if _, err := os.Stat(a.config); err == nil && name != "apt-config" {
		c.Env = append(c.Env, "APT_CONFIG="+a.config)
	}
	out, err := command.Run(ctx, c)
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%w (Debian and the distributions based on it have it)", err)
	}
	return out, err
}
