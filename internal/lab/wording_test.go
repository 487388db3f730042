package lab

import "testing"

func TestTyped(t *testing.T) {
	const text = "next: mage sm:apps, or SM_BUNDLE=b mage sm:install"
	for want, words := range map[string]wording{
		text: {},
		"next: go tool mage sm:apps, or SM_BUNDLE=b go tool mage sm:install":                                           {tool: true},
		"next: SM_PROVIDER=embedded mage sm:apps, or SM_BUNDLE=b SM_PROVIDER=embedded mage sm:install":                 {provider: ProviderEmbedded},
		"next: SM_PROVIDER=embedded go tool mage sm:apps, or SM_BUNDLE=b SM_PROVIDER=embedded go tool mage sm:install": {tool: true, provider: ProviderEmbedded},
	} {
		if got := words.typed(text); got != want {
			t.Errorf("%+v gives\n%s\nwant\n%s", words, got, want)
		}
	}
}
