package kubelet

import "testing"

func TestExpand(t *testing.T) {
	known := func(name string) (string, bool) {
		value, is := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}[name]
		return value, is
	}
	for in, want := range map[string]string{
		"plain": "plain", "$(A)": "1", "x$(A)y$(A)": "x1y1", "$(EMPTY)": "", "$(NONE)": "$(NONE)",
		"$$(A)": "$(A)", "$$": "$", "$": "$", "a$": "a$", "$A": "$A", "$(A": "$(A", "$$$(A)": "$1", "$(B)": "$(A)",
		"100%$": "100%$",
	} {
		if got := expand(in, known); got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}
