package problem_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"testing"

	"ambientlab/internal/problem"
)

func TestCatalogueIsSound(t *testing.T) {
	id := regexp.MustCompile(`^LAB(-[A-Z0-9]+)+$`)
	seen := map[string]bool{}
	for _, k := range problem.Catalogue() {
		if !id.MatchString(k.ID) {
			t.Errorf("%q is not an ID", k.ID)
		}
		if seen[k.ID] {
			t.Errorf("%s is listed twice", k.ID)
		}
		seen[k.ID] = true
		if k.Title == "" || len(k.Advice) == 0 {
			t.Errorf("%s lacks a title or advice", k.ID)
		}
		if k.Number < 0 || k.Number > 9 {
			t.Errorf("%s has number %d, which is no digit", k.ID, k.Number)
		}
		if code := k.Exit(); code != 130 && code/10 != int(k.Layer) {
			t.Errorf("%s exits with %d, which is not of its layer %s", k.ID, code, k.Layer)
		}
	}
}

// A kind that is declared but not listed would be missing from the README.
func TestCatalogueListsEveryKind(t *testing.T) {
	listed := len(problem.Catalogue())
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			if call, ok := spec.Values[0].(*ast.CallExpr); ok {
				if method, ok := call.Fun.(*ast.SelectorExpr); ok && method.Sel.Name == "kind" {
					declared++
				}
			}
			return true
		})
	}
	if declared != listed || declared == 0 {
		t.Errorf("%d kinds are declared, %d listed", declared, listed)
	}
}

func TestExitCode(t *testing.T) {
	docker := problem.New(problem.DockerNotRunning, errors.New("dial unix"), "no engine at %s", "unix:///x")
	other := problem.New(problem.NotReady, docker, "waiting")
	for name, tc := range map[string]struct {
		err  error
		want int
	}{
		"nil":         {nil, 0},
		"plain":       {errors.New("x"), 1},
		"problem":     {docker, 20},
		"wrapped":     {fmt.Errorf("installing: %w", docker), 20},
		"outermost":   {other, 53},
		"joined":      {errors.Join(errors.New("x"), docker, other), 20},
		"interrupted": {problem.New(problem.Interrupted, nil, ""), 130},
	} {
		if got := problem.ExitCode(tc.err); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

func TestProblemIsAnError(t *testing.T) {
	cause := errors.New("dial unix")
	p := problem.New(problem.DockerNotRunning, cause, "no engine at %s", "unix:///x").With("Look there first.")
	if got, want := p.Error(), "no engine at unix:///x: dial unix [LAB-DOCKER-NOT-RUNNING]"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(p, cause) || !problem.Is(fmt.Errorf("x: %w", p), problem.DockerNotRunning) {
		t.Error("the cause or the kind is lost")
	}
	if p.Advice[0] != "Look there first." || problem.DockerNotRunning.Advice[0] == p.Advice[0] {
		t.Error("advice of the particulars comes first, and the catalogue stays as it is")
	}
	bare := problem.New(problem.Internal, nil, "")
	if got := bare.Error(); got != "an unexpected error occurred in the lab [LAB-INTERNAL]" {
		t.Errorf("a problem with nothing seen says %q", got)
	}
}

func TestAllListsEachOnce(t *testing.T) {
	a := problem.New(problem.NotReady, nil, "a")
	b := problem.New(problem.ImagePull, a, "b")
	got := problem.All(errors.Join(fmt.Errorf("x: %w", b), a))
	if len(got) != 2 || got[0] != b || got[1] != a {
		t.Errorf("%v", got)
	}
}
