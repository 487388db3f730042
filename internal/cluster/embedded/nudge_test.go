package embedded

import "testing"

func TestStranded(t *testing.T) {
	for text, want := range map[string]bool{
		`{"status":{"conditions":[{"type":"NamesAccepted","status":"True"},` +
			`{"type":"Established","status":"False"}]}}`: true,
		`{"status":{"conditions":[{"type":"NamesAccepted","status":"True"}]}}`: true,
		`{"status":{"conditions":[{"type":"NamesAccepted","status":"True"},` +
			`{"type":"Established","status":"True"}]}}`: false,
		`{"status":{"conditions":[{"type":"NamesAccepted","status":"False"},{"type":"Established",` +
			`"status":"False"}]}}`: false,
		`{"status":{}}`: false,
	} {
		if got := stranded(object(t, text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
