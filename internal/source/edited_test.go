package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEditsFit wants every line that is edited in the version of the module that is pinned, once.
func TestEditsFit(t *testing.T) {
	b, err := New(Options{CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	edited := 0
	for _, p := range Programs() {
		changes := edits(p.Name)
		if len(changes) == 0 {
			continue
		}
		edited++
		dir := t.TempDir()
		flag, err := b.edited(t.Context(), p, dir)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		mod, err := os.ReadFile(strings.TrimPrefix(flag, "-modfile="))
		if err != nil || !strings.Contains(string(mod), "replace "+changes[0].Module+" => ") {
			t.Errorf("%s: go.mod lacks the copy: %v", p.Name, err)
		}
		for _, change := range changes {
			if change.Module != changes[0].Module {
				t.Errorf("%s: edits of more than one module", p.Name)
			}
			content, err := os.ReadFile(filepath.Join(dir, "edited", change.File))
			if err != nil || !strings.Contains(string(content), change.New) {
				t.Errorf("%s: %s was not edited: %v", p.Name, change.File, err)
			}
		}
	}
	if edited != 1 {
		t.Errorf("%d programs are edited", edited)
	}
}
