package source

import (
	"debug/buildinfo"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"

	"ambientlab/internal/source/debian"
)

// Kinds of component: the types of package URLs.
const (
	KindGo     = "golang"
	KindDebian = "deb"
	KindPyPI   = "pypi"
)

// Component is something with a name and a version that is inside an image.
type Component struct {
	// Kind is KindGo, KindDebian or KindPyPI.
	Kind string
	// Name is the module's path, or the package's name.
	Name    string
	Version string
	// Arch is a Debian package's architecture.
	Arch string
	// Sum is a Go module's checksum as in go.sum; empty for this project's own modules.
	Sum string
	// SHA256 is the checksum, in hex, of a package's file.
	SHA256 string
	// Inside are the image's files that hold it, for Go modules and Envoy.
	Inside []string
}

// PURL is the component's package URL, https://github.com/package-url/purl-spec.
func (c Component) PURL() string {
	switch c.Kind {
	case KindDebian:
		return fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", c.Name, purlVersion(c.Version), c.Arch)
	case KindGo:
		if c.Version == "" {
			return "pkg:golang/" + c.Name
		}
	}
	return fmt.Sprintf("pkg:%s/%s@%s", c.Kind, c.Name, purlVersion(c.Version))
}

// purlVersion escapes the characters of Debian and Go versions that a package URL must not have.
func purlVersion(v string) string {
	return strings.NewReplacer("%", "%25", "+", "%2B", ":", "%3A", " ", "%20").Replace(v)
}

// GoComponents lists the modules that the linker recorded in a program. inside is the program's path in the image. A
// go.mod would also list modules that are not in the program.
func GoComponents(inside, binary string) ([]Component, error) {
	components, _, err := goComponents(inside, binary)
	return components, err
}

// goComponents also returns the module of the program itself, with its version.
func goComponents(inside, binary string) (components []Component, main string, err error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return nil, "", fmt.Errorf("reading what is inside %s: %w", filepath.Base(binary), err)
	}
	components, main = linked(inside, info)
	return components, main, nil
}

// linked lists the modules of the program at path.
func linked(path string, info *debug.BuildInfo) (components []Component, main string) {
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		inPlace := Component{Kind: KindGo, Name: m.Path, Version: m.Version, Sum: m.Sum, Inside: []string{path}}
		if m.Replace != nil {
			// A module that replaces another. A folder of this project has no version.
			inPlace.Sum = m.Replace.Sum
			if strings.HasPrefix(m.Replace.Path, ".") {
				inPlace.Version = ""
			} else {
				inPlace.Name, inPlace.Version = m.Replace.Path, m.Replace.Version
			}
		}
		if inPlace.Version == "(devel)" {
			inPlace.Version = ""
		}
		components = append(components, inPlace)
		// The program's package is in the module whose path is the longest prefix of its own.
		if m.Path == info.Path || strings.HasPrefix(info.Path, m.Path+"/") {
			if name, _, _ := strings.Cut(main, "@"); len(m.Path) > len(name) {
				main = strings.TrimSuffix(m.Path+"@"+inPlace.Version, "@")
			}
		}
	}
	return components, main
}

func debianComponents(packages []debian.Package) []Component {
	var components []Component
	for _, p := range packages {
		components = append(components, Component{
			Kind: KindDebian, Name: p.Name, Version: p.Version, Arch: p.Architecture, SHA256: p.SHA256,
		})
	}
	return components
}
