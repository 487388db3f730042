package params

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// istiod's arithmetic is in the pinned module, in a function that is not exported. It is read from there, so that a
// later version that rounds fails this test.
func TestMillionthsAreTheOnesOfIstiod(t *testing.T) {
	folder, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio").Output()
	if err != nil {
		t.Fatalf("finding the pinned module istio.io/istio: %v", err)
	}
	source, err := os.ReadFile(
		filepath.Join(strings.TrimSpace(string(folder)), "pilot/pkg/networking/core/route/route.go"))
	if err != nil {
		t.Fatal(err)
	}
	body := regexp.MustCompile(`(?s)func translatePercentToFractionalPercent\(.*?\n}`).Find(source)
	for _, want := range []string{
		`Numerator:   uint32(p.Value * 10000),`,
		`Denominator: xdstype.FractionalPercent_MILLION,`,
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("istiod no longer computes %q:\n%s", want, body)
		}
	}
}

// Every percentage with two decimals, parsed from the text that a user types. 612 of them are not what rounding gives.
func TestEveryPercentageWithTwoDecimals(t *testing.T) {
	differ := 0
	for hundredths := 1; hundredths <= 10000; hundredths++ {
		percent, err := strconv.ParseFloat(strconv.Itoa(hundredths/100)+"."+strconv.Itoa(hundredths%100/10)+
			strconv.Itoa(hundredths%10), 64)
		if err != nil {
			t.Fatal(err)
		}
		got, rounded := Fault{Percent: percent}.Millionths(), uint32(hundredths*100)
		switch got {
		case rounded:
		case rounded - 1:
			differ++
		default:
			t.Fatalf("%v %% is %d millionths", percent, got)
		}
	}
	if differ != 612 {
		t.Errorf("%d values are truncated, want 612", differ)
	}
	if got := (Fault{Percent: 1.14}).Millionths(); got != 11399 {
		t.Errorf("1.14 %% is %d millionths", got)
	}
}

func TestCovers(t *testing.T) {
	prefix, exact := DefaultFault(), DefaultFault()
	exact.Exact = true
	for path, want := range map[string][2]bool{
		"/headers": {true, true}, "/headers/x": {true, false}, "/headers2": {true, false}, "/header": {false, false},
		"/ip": {false, false},
	} {
		if prefix.Covers(path) != want[0] || exact.Covers(path) != want[1] {
			t.Errorf("%s: prefix %v, exact %v", path, prefix.Covers(path), exact.Covers(path))
		}
	}
	if got := prefix.String() + ", " + exact.String(); got != "50 % of /headers* by 2s, 50 % of /headers by 2s" {
		t.Error(got)
	}
}
