package lab

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestPacketsAgain installs, uses and deletes a lab whose pods run several times: no process, network namespace, link,
// mount, port, file or kubeconfig entry may be left.
func TestPacketsAgain(t *testing.T) {
	b := newBench(t, "packets-again", "SM_PACKETS=on")
	links := linkNames(t)
	for round := range packetsRounds {
		start := time.Now()
		b.installOrSkip()
		b.do("apps", b.apps)
		b.answers(http.MethodGet, b.hostAddress(), http.StatusOK)
		answered := time.Since(start)
		var state struct{ Ports map[string]int }
		if err := json.Unmarshal([]byte(read(t, filepath.Join(b.plane().Dir(), "lab.json"))), &state); err != nil {
			t.Fatal(err)
		}
		pods := descendants(t, b.pid("podrunner"))
		inside := networks(pods)
		if len(inside) < 5 {
			t.Errorf("the pods are in %d network namespaces", len(inside))
		}
		b.gone(state.Ports)
		all, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			// The kernel numbers a new namespace, of another lab, as one that is gone.
			if pid, _ := strconv.Atoi(strings.Split(path, "/")[2]); !slices.Contains(pods, pid) {
				continue
			}
			if network, err := os.Readlink(path); err == nil && slices.Contains(inside, network) {
				t.Errorf("%s, of a pod, is still there: %s", network, path)
			}
		}
		if strings.Contains(read(t, "/proc/self/mountinfo"), b.StateDir) {
			t.Error("something is mounted in the lab's folder")
		}
		if now := linkNames(t); !slices.Equal(now, links) {
			t.Errorf("the links were %v and are %v", links, now)
		}
		t.Logf("round %d: first 200 after %s, gone after %s", round+1, answered.Round(10*time.Millisecond),
			time.Since(start).Round(10*time.Millisecond))
		b.Env = b.lab().Env
	}
}

// networks lists the network namespaces of some processes but this process's own.
func networks(pids []int) []string {
	own, _ := os.Readlink("/proc/self/ns/net")
	var found []string
	for _, pid := range pids {
		network, err := os.Readlink(procPath(pid, "ns/net"))
		if err == nil && network != own && !slices.Contains(found, network) {
			found = append(found, network)
		}
	}
	return found
}

// dockersLinks are the names that Docker gives the links of containers and the bridges of networks. Labs on kind can
// run beside this test.
var dockersLinks = regexp.MustCompile(`^(veth[0-9a-f]{7}|br-[0-9a-f]{12})$`)

// linkNames lists the network devices of this process's network namespace, without Docker's.
func linkNames(t *testing.T) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(read(t, "/proc/self/net/dev")) {
		name, _, is := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); is && !dockersLinks.MatchString(name) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

func procPath(pid int, file string) string { return filepath.Join("/proc", strconv.Itoa(pid), file) }
