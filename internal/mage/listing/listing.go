// Package listing keeps, beside a compiled lab, a list of what it was compiled from: the settings of the Go command,
// and what the file system said about every file and folder that was read. While nothing of it differs, no content has
// changed, and no file has to be read to know that. Git's index works in the same way
// (https://git-scm.com/docs/racy-git).
//
// The package has few dependencies: the Go command reads the source of each before it starts `go tool mage`.
package listing

import (
	"hash/fnv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Granularity is how far apart two changes of a file must be for the file system to give them different times: 2 s on
// FAT, less elsewhere.
const Granularity = 2 * time.Second

// Listing says what a program was compiled from.
type Listing struct {
	// Program is the compiled program.
	Program string
	// Settings is what the function of that name gave.
	Settings string
	// States has the State of each file and folder, by its name. A name that leads to no file has one too.
	States map[string]string
}

// State says what the file system knows of a file or folder: every change of a file's content, and every file that is
// added to a folder or removed from it, changes it. changed is when that was last. It is unknown where the system does
// not tell when a file's status changed: a program can set the time of a file's last change, but not that one.
func State(name string) (state string, changed time.Time, known bool) {
	info, err := os.Stat(name)
	if os.IsNotExist(err) {
		return "absent", time.Time{}, true
	}
	if err != nil {
		return "", time.Time{}, false
	}
	device, inode, changed, known := status(info)
	if !known {
		return "", time.Time{}, false
	}
	numbers := []int64{int64(info.Mode()), info.Size(), info.ModTime().UnixNano(), changed.UnixNano(), device, inode}
	text := make([]byte, 0, 80)
	for _, n := range numbers {
		text = append(strconv.AppendInt(text, n, 36), '.')
	}
	return string(text), changed, true
}

// Prefix begins the name of every listing's file.
const Prefix = "listing-"

// file is where the listing of a folder's magefile is kept. Two folders can have the same one, by chance.
func file(dir string) string {
	cache := os.Getenv("MAGEFILE_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		cache = filepath.Join(home, ".magefile")
	}
	name := fnv.New64a()
	_, _ = name.Write([]byte(dir))
	return filepath.Join(cache, Prefix+strconv.FormatUint(name.Sum64(), 16))
}

// Write keeps the listing of dir's magefile.
func (l Listing) Write(dir string) error {
	var text strings.Builder
	for _, header := range []string{dir, l.Program, l.Settings} {
		text.WriteString(strconv.Quote(header) + "\n")
	}
	for name, state := range l.States {
		text.WriteString(state + " " + strconv.Quote(name) + "\n")
	}
	path := file(dir)
	scratch, err := os.CreateTemp(filepath.Dir(path), Prefix)
	if err != nil {
		return err
	}
	_, err = scratch.WriteString(text.String())
	if closed := scratch.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(scratch.Name(), path)
	}
	if err != nil {
		_ = os.Remove(scratch.Name())
	}
	return err
}

// Current gives the program that was compiled from what is in dir now, or "" where that cannot be told without reading
// the files. settings gives what Listing.Settings is compared with.
func Current(dir string, settings func() (string, error)) string {
	content, err := os.ReadFile(file(dir))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
	if len(lines) < headers {
		return ""
	}
	var header [headers]string
	for i := range header {
		if header[i], err = strconv.Unquote(lines[i]); err != nil {
			return ""
		}
	}
	if header[0] != dir {
		return ""
	}
	same := make(chan bool, 1)
	go func() { // it runs the Go command, which takes longer than all the rest
		now, err := settings()
		same <- err == nil && now == header[2]
	}()
	for _, line := range lines[headers:] {
		state, quoted, _ := strings.Cut(line, " ")
		name, err := strconv.Unquote(quoted)
		if err != nil {
			return ""
		}
		if now, _, known := State(name); !known || now != state {
			return ""
		}
	}
	if !<-same {
		return ""
	}
	return header[1]
}

// headers is how many lines precede the states.
const headers = 3
