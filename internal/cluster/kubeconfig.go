package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/problem"
)

// currentContext says what becomes of the user's current context.
type currentContext bool

const (
	setCurrent  currentContext = true
	keepCurrent currentContext = false
)

// kubeconfigPaths splits KUBECONFIG as kubectl does; empty means ~/.kube/config.
func kubeconfigPaths(value string) []string {
	var paths []string
	seen := make(map[string]bool)
	for _, p := range filepath.SplitList(value) {
		if p != "" && !seen[p] {
			seen[p] = true
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		return []string{clientcmd.RecommendedHomeFile}
	}
	return paths
}

// missing tells whether none of the files exists. clientcmd takes such files for empty ones.
func missing(paths []string) bool {
	return !slices.ContainsFunc(paths, func(path string) bool {
		_, err := os.Stat(path)
		return !errors.Is(err, fs.ErrNotExist)
	})
}

// linked tells whether one of the files leads to the server under the context's name.
func linked(paths []string, context, server string) bool {
	for _, p := range paths {
		cfg, err := clientcmd.LoadFromFile(p)
		if err != nil {
			continue
		}
		if c, ok := cfg.Contexts[context]; ok {
			to, ok := cfg.Clusters[c.Cluster]
			return ok && to.Server == server
		}
	}
	return false
}

// Kubeconfig changes the user's kubeconfig: read and written under the lock that kubectl and kind use, mode 0600, and
// in one step, so that a kill leaves the old file or the new one.
type Kubeconfig struct {
	paths []string
	after func(time.Duration) <-chan time.Time
}

// NewKubeconfig takes one file or several, as KUBECONFIG is written; empty means ~/.kube/config.
func NewKubeconfig(value string) Kubeconfig {
	return Kubeconfig{paths: kubeconfigPaths(value), after: time.After}
}

// Paths lists the files, as kubectl reads them.
func (k Kubeconfig) Paths() []string { return k.paths }

// Linked tells whether a file leads to the server under the context's name.
func (k Kubeconfig) Linked(context, server string) bool { return linked(k.paths, context, server) }

// Link puts the entries called name in and makes name the current context. It gives the file it changed, or "" if it
// had them all.
func (k Kubeconfig) Link(ctx context.Context, entries *api.Config, name string) (string, error) {
	return k.merge(ctx, entries, name, setCurrent)
}

// merge puts the entries called name in, and makes name the current context if asked to, or if there is none. It gives
// the file it changed, or "" if it had them all.
func (k Kubeconfig) merge(
	ctx context.Context, entries *api.Config, name string, choice currentContext,
) (string, error) {
	path := k.target(name)
	changed := ""
	err := k.edit(ctx, path, func(cfg *api.Config) bool {
		before := cfg.DeepCopy()
		for key, v := range entries.Clusters {
			cfg.Clusters[key] = v
		}
		for key, v := range entries.AuthInfos {
			cfg.AuthInfos[key] = v
		}
		for key, v := range entries.Contexts {
			if had, ok := cfg.Contexts[key]; ok {
				v.Namespace = had.Namespace // the user's choice of namespace is kept
			}
			cfg.Contexts[key] = v
		}
		if choice == setCurrent || cfg.CurrentContext == "" {
			cfg.CurrentContext = name
		}
		if same(before, cfg) {
			return false
		}
		changed = path
		return true
	})
	return changed, err
}

// Unlink takes the entries called name out of every file, and the current context where it is that one.
func (k Kubeconfig) Unlink(ctx context.Context, name string) error {
	var errs []error
	for _, path := range k.paths {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, k.edit(ctx, path, func(cfg *api.Config) bool {
			before := cfg.DeepCopy()
			delete(cfg.Clusters, name)
			delete(cfg.AuthInfos, name)
			delete(cfg.Contexts, name)
			if cfg.CurrentContext == name {
				cfg.CurrentContext = ""
			}
			return !same(before, cfg)
		}))
	}
	return errors.Join(errs...)
}

// target is where kubectl would write: the file that has the context, else the first that exists, else the last.
func (k Kubeconfig) target(name string) string {
	existing := ""
	for _, p := range k.paths {
		cfg, err := clientcmd.LoadFromFile(p)
		if err != nil {
			continue
		}
		if _, ok := cfg.Contexts[name]; ok {
			return p
		}
		if existing == "" {
			existing = p
		}
	}
	if existing != "" {
		return existing
	}
	return k.paths[len(k.paths)-1]
}

// edit changes one file. change says whether there is something to write.
func (k Kubeconfig) edit(ctx context.Context, path string, change func(*api.Config) bool) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return problem.New(problem.KubeconfigInvalid, err, "making the directory for %s", path)
	}
	unlock, err := k.lock(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	cfg, err := clientcmd.LoadFromFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		cfg, err = api.NewConfig(), nil
	}
	if err != nil {
		return problem.New(problem.KubeconfigInvalid, err, "reading kubeconfig %s", path)
	}
	if !change(cfg) {
		return nil
	}
	content, err := clientcmd.Write(*cfg)
	if err != nil {
		return problem.New(problem.KubeconfigInvalid, err, "writing kubeconfig %s", path)
	}
	if err := replace(path, content); err != nil {
		return problem.New(problem.KubeconfigInvalid, err, "writing kubeconfig %s", path)
	}
	return nil
}

// replace puts a new file in the place of the old one, behind a symbolic link too. A file that cannot be replaced,
// because it is a mount point or its directory is not writable, is overwritten.
func replace(path string, content []byte) error {
	path = resolved(path)
	file, err := os.CreateTemp(filepath.Dir(path), temporary)
	if err != nil {
		if overwrite(path, content) == nil {
			return nil
		}
		return err
	}
	if _, err := file.Write(content); err != nil {
		return errors.Join(err, file.Close(), os.Remove(file.Name()))
	}
	if err = atomicfile.Replace(file, path, 0o600); err == nil {
		return nil
	}
	if failed := overwrite(path, content); failed != nil {
		err = errors.Join(err, failed)
	} else {
		err = nil
	}
	// Until here the new content is in the temporary file, should this process be killed while it overwrites.
	return errors.Join(err, os.Remove(file.Name()))
}

const temporary = ".kubeconfig-"

func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

// overwrite writes into an existing file, and restores its content if that fails.
func overwrite(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	before, err := io.ReadAll(file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	write := func(content []byte) error {
		if _, err := file.WriteAt(content, 0); err != nil {
			return err
		}
		return errors.Join(file.Truncate(int64(len(content))), file.Sync())
	}
	_ = file.Chmod(0o600) // the file may belong to another user, who has chosen its mode
	if err := write(content); err != nil {
		return errors.Join(err, write(before), file.Close())
	}
	return file.Close()
}

// Check returns a problem where Link could not write the entries called name. It changes nothing but for the
// directory, which it makes.
func (k Kubeconfig) Check(ctx context.Context, name string) error {
	path := k.target(name)
	if err := k.edit(ctx, path, func(*api.Config) bool { return false }); err != nil {
		return err
	}
	if err := writable(resolved(path)); err != nil {
		return problem.New(problem.KubeconfigInvalid, err, "kubeconfig %s cannot be written", path).
			With("Name a file that can be written with KUBECONFIG. In a container, " +
				"mount the directory of the kubeconfig, and not read-only.")
	}
	return nil
}

// writable tries to open the file for writing. One whose mode forbids that can still be replaced where its directory is
// writable.
func writable(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		return file.Close()
	}
	if errors.Is(err, syscall.EROFS) {
		return err
	}
	file, err = os.CreateTemp(filepath.Dir(path), temporary)
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), os.Remove(file.Name()))
}

// How long another program may hold the lock before the lock is reported as stale.
const (
	kubeconfigLockInterval = 100 * time.Millisecond
	kubeconfigLockTries    = 100
)

// lock takes kubectl's lock: a file that only one can create. A program that was killed leaves it behind, and only a
// person can tell.
func (k Kubeconfig) lock(ctx context.Context, path string) (unlock func() error, err error) {
	name := path + ".lock"
	for range kubeconfigLockTries {
		file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			_ = file.Close() // nothing was written
			return func() error { return os.Remove(name) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, problem.New(problem.KubeconfigInvalid, err, "locking kubeconfig %s", path).
				With("kubectl and kind create this lock file too, so its directory must be writable. " +
					"KUBECONFIG can name a file in another directory.")
		}
		select {
		case <-k.after(kubeconfigLockInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lock %s: %w", name, context.Cause(ctx))
		}
	}
	return nil, problem.New(problem.KubeconfigInvalid, nil, "kubeconfig %s stays locked by %s", path, name).
		With("If no kubectl and no kind is running, a killed one left the lock file: remove " + name + ".")
}

func same(a, b *api.Config) bool {
	left, errA := clientcmd.Write(*a)
	right, errB := clientcmd.Write(*b)
	return errA == nil && errB == nil && bytes.Equal(left, right)
}
