package starter

import (
	"os"
	"testing"
)

func TestIsParent(t *testing.T) {
	parent := func() int { return 42 }
	for value, want := range map[string]bool{"": false, "42": true, "43": false} {
		if got := IsParent(func(string) string { return value }, parent); got != want {
			t.Errorf("%s=%q, and the parent is 42: %t", Variable, value, got)
		}
	}
}

func TestMark(t *testing.T) {
	t.Setenv(Variable, "")
	if err := Mark(); err != nil {
		t.Fatal(err)
	}
	if !IsParent(os.Getenv, os.Getpid) {
		t.Errorf("a child of this process sees %s=%q", Variable, os.Getenv(Variable))
	}
}
