package session

import "testing"

func TestCommandOf(t *testing.T) {
	for _, tc := range []struct {
		byMage, byProjectsMage bool
		want                   string
	}{
		{false, false, "./lab"},
		{true, false, "mage"},
		{true, true, "go tool mage"},
		{false, true, "go tool mage"},
	} {
		if got := CommandOf("./lab", tc.byMage, tc.byProjectsMage); got != tc.want {
			t.Errorf("%+v: got %q", tc, got)
		}
	}
}

func TestTypedWith(t *testing.T) {
	const text = "next: mage sm:apps, or SM_BUNDLE=b mage sm:install"
	for command, want := range map[string]string{
		"":             text,
		"mage":         text,
		"go tool mage": "next: go tool mage sm:apps, or SM_BUNDLE=b go tool mage sm:install",
		"./lab":        "next: ./lab sm:apps, or SM_BUNDLE=b ./lab sm:install",
	} {
		if got := TypedWith(command, text); got != want {
			t.Errorf("%s gives\n%s\nwant\n%s", command, got, want)
		}
	}
}
