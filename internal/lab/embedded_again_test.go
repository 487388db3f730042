package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

// TestEmbeddedAgain installs and deletes a whole lab several times: no process, port, file or kubeconfig entry may be
// left, of istiod and MetalLB's controller no more than of the rest.
func TestEmbeddedAgain(t *testing.T) {
	b := newBench(t, "again")
	for range rounds {
		b.do("install", b.Install)
		var state struct{ Ports map[string]int }
		if err := json.Unmarshal([]byte(read(t, filepath.Join(b.plane().Dir(), "lab.json"))), &state); err != nil {
			t.Fatal(err)
		}
		if n := b.processes(); n != 7 && n != -1 {
			t.Errorf("%d processes", n)
		}
		b.gone(state.Ports)
		b.Env = b.lab().Env
	}
}

// gone deletes the lab and wants nothing left of it.
func (b *bench) gone(ports map[string]int) {
	b.t.Helper()
	b.do("delete", b.Delete)
	if n := b.processes(); n > 0 {
		b.t.Errorf("%d processes are left", n)
	}
	if len(ports) < 9 {
		b.t.Errorf("ports %v", ports)
	}
	for name, port := range ports {
		// No other program uses them: they lie below the range of outgoing connections, and are chosen at random
		// from 12000.
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			b.t.Errorf("port %s: %v", name, err)
			continue
		}
		_ = listener.Close()
	}
	if _, err := os.Stat(b.StateDir); !os.IsNotExist(err) {
		b.t.Errorf("files are left: %v", err)
	}
	config, err := clientcmd.LoadFromFile(b.Settings.Kubeconfig)
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	if err == nil && len(config.Contexts)+len(config.Clusters)+len(config.AuthInfos) > 0 {
		b.t.Errorf("the kubeconfig still has %v", config.Contexts)
	}
}

// processes counts those with the lab's folder on their command line or in their environment, or as their folder; -1
// where there is no /proc.
func (b *bench) processes() int {
	b.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(all) == 0 {
		return -1
	}
	found := 0
	for _, dir := range all {
		if dir == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		words, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environment, _ := os.ReadFile(filepath.Join(dir, "environ"))
		where, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if bytes.Contains(words, []byte(b.StateDir)) || bytes.Contains(environment, []byte(b.StateDir)) ||
			strings.HasPrefix(where, b.StateDir) {
			found++
		}
	}
	return found
}
