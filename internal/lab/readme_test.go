package lab

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
	stations, err := workshop.Stations()
	if err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]string{
		"settings": settingsTable(), "problems": problemsTable(), "stations": workshop.Table(stations),
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
	stations, err := workshop.Stations()
	if err != nil {
		t.Fatal(err)
	}
	path, want := filepath.Join("..", "..", "WORKSHOP.md"), workshop.Guide(stations)
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
