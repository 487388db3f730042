package lb

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// The shell commands write the range that slot 0 of the network has.
func TestCommands(t *testing.T) {
	for _, subnet := range []string{"172.18.0.0/16", "172.18.0.0/24", "10.255.240.0/20", "10.0.0.0/8"} {
		dir := t.TempDir()
		objects := Objects(Pool{})
		text, err := yaml.Marshal(objects[0].Object)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "pool.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		script := "set -eu\ndocker() { echo fd00::/64; echo " + subnet + "; }\n" + strings.Join(
			Commands("kind", file),
			"\n",
		)
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		want, err := slotRange(netip.MustParsePrefix(subnet), 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(got), want.String()) {
			t.Errorf("%s: got\n%s\nwant %s", subnet, got, want)
		}
	}
}
