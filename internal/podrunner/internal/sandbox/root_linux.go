package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// devices are what programs expect in /dev.
var devices = [...]string{"full", "null", "random", "tty", "urandom", "zero"}

// makeRoot lays a container's root out in dir.
func makeRoot(dir string, root Root) error {
	for _, path := range append([]string{"dev/shm", "etc", "proc", "run", "tmp", "var/log", "var/run", "root"},
		root.Image.Directories...) {
		if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777|fs.ModeSticky); err != nil {
		return err
	}
	for path, content := range root.Files {
		if err := writeIn(dir, path, content); err != nil {
			return err
		}
	}
	for link, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0",
		"stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, filepath.Join(dir, "dev", link)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	mounts := []Mount{{Source: "/proc", Path: "/proc"}}
	for _, device := range devices {
		mounts = append(mounts, Mount{Source: "/dev/" + device, Path: "/dev/" + device})
	}
	if root.Image.Libraries {
		libraries, err := libraries(dir)
		if err != nil {
			return err
		}
		mounts = append(mounts, libraries...)
	}
	for _, file := range root.Image.Files {
		mounts = append(mounts, Mount{Source: file.Source, Path: file.Path, ReadOnly: true})
	}
	// A volume within another volume comes after it.
	volumes := slices.Clone(root.Mounts)
	slices.SortStableFunc(
		volumes,
		func(a, b Mount) int { return strings.Count(a.Path, "/") - strings.Count(b.Path, "/") },
	)
	for _, mount := range append(mounts, volumes...) {
		if err := bind(dir, mount); err != nil {
			return err
		}
	}
	return nil
}

// libraries are the folders of this machine with its C library. Where the system has them as links into /usr, they are
// links here too.
func libraries(dir string) ([]Mount, error) {
	mounts := []Mount{{Source: "/usr/lib", Path: "/usr/lib", ReadOnly: true}}
	for _, name := range []string{"lib", "lib64", "usr/lib64"} {
		info, err := os.Lstat("/" + name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink("/" + name)
			if err != nil {
				return nil, err
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				return nil, err
			}
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		default:
			mounts = append(mounts, Mount{Source: "/" + name, Path: "/" + name, ReadOnly: true})
		}
	}
	return mounts, nil
}

// bind mounts a folder or file in a root. A symbolic link at the path would lead out of it, and is refused.
func bind(dir string, mount Mount) error {
	info, err := os.Stat(mount.Source)
	if err != nil {
		return fmt.Errorf("mounting %s: %w", mount.Path, err)
	}
	target := filepath.Join(dir, filepath.Clean("/"+mount.Path))
	parent := filepath.Dir(target)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(parent); err != nil || (real != dir && !strings.HasPrefix(real, dir+"/")) {
		return fmt.Errorf("mounting %s: its folder leads out of the container's root: %w", mount.Path, err)
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if _, missing := os.Lstat(target); errors.Is(missing, fs.ErrNotExist) {
		err = os.WriteFile(target, nil, 0o644)
	}
	if err != nil {
		return err
	}
	// In a user namespace only a recursive mount is allowed: what is mounted within the source may hide something.
	if err := unix.Mount(mount.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s at %s: %w", mount.Source, mount.Path, err)
	}
	if !mount.ReadOnly {
		return nil
	}
	// Older kernels (before 5.12) cannot; what is mounted here belongs to the user, so it is no loss of protection.
	err = unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("making the mount at %s read-only: %w", mount.Path, err)
	}
	return nil
}

// writeIn writes a file in a root.
func writeIn(dir, path, content string) error {
	target := filepath.Join(dir, filepath.Clean("/"+path))
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, []byte(content), 0o644)
}

// remove deletes a folder, after everything that is mounted in it. While anything still is, nothing is deleted: a
// recursive removal would go on in the folder that is mounted there.
func remove(dir string) error {
	for range 3 {
		points, err := mountsIn(dir)
		if err != nil {
			return err
		}
		if len(points) == 0 {
			return os.RemoveAll(dir)
		}
		for _, point := range slices.Backward(points) {
			if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil &&
				!errors.Is(err, unix.EINVAL) {
				return fmt.Errorf("unmounting %s: %w", point, err)
			}
		}
	}
	return fmt.Errorf("removing %s: something is still mounted in it", dir)
}

// mountsIn lists what is mounted in a folder, in the order in which it was mounted (proc(5), mountinfo).
func mountsIn(dir string) ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var points []string
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) < 5 {
			continue
		}
		if point := unescape(fields[4]); point == dir || strings.HasPrefix(point, dir+"/") {
			points = append(points, point)
		}
	}
	return points, scanner.Err()
}

// unescape reads a path of mountinfo, in which white space and backslashes are written in octal.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
