package lab

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/workshop"
)

// update rewrites the README's tables: go test ./internal/lab -run README -update
var update = flag.Bool("update", false, "rewrite the README's tables")

// TestREADME keeps the README's tables of settings and problems equal to the code's.
func TestREADME(t *testing.T) {
	path := filepath.Join("..", "..", "README.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(raw)
	stations, err := workshop.Stations("mage")
	if err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{
		"settings": settingsTable(), "problems": problemsTable(), "stations": stationsTable(stations),
	} {
		if want, err = between(want, name, table); err != nil {
			t.Fatal(err)
		}
	}
	if want == string(raw) {
		return
	}
	if !*update {
		t.Fatal("README.md's tables are not what the code says; run: go test ./internal/lab -run README -update")
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGuide keeps the printable page of the workshop equal to the stations.
func TestGuide(t *testing.T) {
	stations, err := workshop.Stations("mage")
	if err != nil {
		t.Fatal(err)
	}
	path, want := filepath.Join("..", "..", "WORKSHOP.md"), guide(stations)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil || string(raw) != want {
		t.Errorf("WORKSHOP.md is not what the stations say (%v); run: go test ./internal/lab -run Guide -update", err)
	}
}

// between puts text between the two marks of a name.
func between(document, name, text string) (string, error) {
	begin, end := fmt.Sprintf("<!-- %s -->\n", name), fmt.Sprintf("<!-- /%s -->", name)
	head, rest, found := strings.Cut(document, begin)
	_, tail, foundEnd := strings.Cut(rest, end)
	if !found || !foundEnd {
		return "", fmt.Errorf("README.md lacks the marks %q and %q", strings.TrimSpace(begin), end)
	}
	return head + begin + text + end + tail, nil
}

func settingsTable() string {
	var b strings.Builder
	b.WriteString("| variable | unset means | accepts | for |\n| --- | --- | --- | --- |\n")
	for _, s := range session.Documented() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Env, s.Default, s.Accepts, s.Help)
	}
	return b.String()
}

func problemsTable() string {
	var b strings.Builder
	b.WriteString("| ID | exit | what | what to do |\n| --- | --- | --- | --- |\n")
	for _, kind := range problem.Catalogue() {
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s |\n", kind.ID, kind.Exit(), kind.Title,
			strings.Join(kind.Advice, "<br>"))
	}
	return b.String()
}

// TestHowItIsBuilt wants every file and every identifier that the README's two walks through the code name to exist.
func TestHowItIsBuilt(t *testing.T) {
	root := filepath.Join("..", "..")
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, walks, found := strings.Cut(string(readme), "\nThe way of `mage sm:install` through the code:\n")
	walks, _, foundEnd := strings.Cut(walks, "\nTo add a lesson:")
	if !found || !foundEnd {
		t.Fatal("README.md lacks the two walks through the code")
	}
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	word := regexp.MustCompile(`[A-Za-z_]\w*`)
	code := regexp.MustCompile("`([^`]+)`")
	for _, line := range regexp.MustCompile(`(?m)^\d+\. `).Split(walks, -1)[1:] {
		line, _, _ = strings.Cut(line, "\n\n")
		var folders, names []string
		for _, quoted := range code.FindAllStringSubmatch(line, -1) {
			text := quoted[1]
			switch {
			case strings.HasPrefix(text, "sm:"), strings.HasPrefix(text, "SM_"):
			case strings.HasSuffix(text, ".go") && !strings.Contains(text, "/"):
				text = filepath.Base(folders[len(folders)-1]) + "/" + text
				fallthrough
			case strings.Contains(text, "/"):
				path := filepath.Join(root, "internal", text)
				if top := filepath.Join(root, text); exists(top) {
					path = top
				}
				if !exists(path) {
					t.Errorf("%s does not exist: %s", text, line)
				}
				folders = append(folders, filepath.Dir(path))
			case exists(filepath.Join(root, "internal", text)):
				folders = append(folders, filepath.Join(root, "internal", text))
			default:
				names = append(names, word.FindAllString(text, -1)...)
			}
		}
		var source strings.Builder
		for _, folder := range append(folders, filepath.Join(root, "internal", "lab")) {
			files, err := filepath.Glob(filepath.Join(folder, "*.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				source.Write(content)
			}
		}
		for _, name := range names {
			if !regexp.MustCompile(`\b` + name + `\b`).MatchString(source.String()) {
				t.Errorf("no %s in %v: %s", name, folders, line)
			}
		}
	}
}
