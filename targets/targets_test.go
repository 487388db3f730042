package targets

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ambientlab/internal/session"
)

// TestTargetsNameTheirVariables reads the comments that `mage -h` shows: each ends with the variables that the target
// reads, by the names and in the order of the settings, and no setting is read by none.
func TestTargetsNameTheirVariables(t *testing.T) {
	var known []string
	for _, setting := range session.Documented() {
		known = append(known, setting.Env)
	}
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	read, targets := map[string]bool{}, 0
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, declared := range file.Decls {
			target, is := declared.(*ast.FuncDecl)
			if !is || !target.Name.IsExported() {
				continue
			}
			targets++
			lines := strings.Split(strings.TrimSpace(target.Doc.Text()), "\n")
			list, says := strings.CutPrefix(lines[len(lines)-1], "Variables: ")
			if !says || !strings.HasSuffix(list, ".") {
				t.Errorf("%s: the last line of its comment is %q, which names no variables", target.Name,
					lines[len(lines)-1])
				continue
			}
			last := -1
			for _, name := range strings.Split(strings.TrimSuffix(list, "."), ", ") {
				at := slices.Index(known, name)
				if at <= last {
					t.Errorf("%s: %s is no setting, or not in the settings' order", target.Name, name)
				}
				last = at
				read[name] = true
			}
		}
	}
	if targets == 0 {
		t.Fatal("no target was found")
	}
	for _, name := range known {
		if !read[name] {
			t.Errorf("no target says that it reads %s", name)
		}
	}
}
