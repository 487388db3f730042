package lb

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

var update = flag.Bool("update", false, "write the golden files")

func ipam(subnets ...string) []network.IPAMConfig {
	var entries []network.IPAMConfig
	for _, s := range subnets {
		p := netip.MustParsePrefix(s)
		entries = append(entries, network.IPAMConfig{Subnet: p, Gateway: p.Masked().Addr().Next()})
	}
	return entries
}

// lab puts a lab's control plane on the network.
func lab(e *dockertest.Engine, name, ip string, slot int, created int64) {
	e.Add(dockertest.Container{
		Name: name + "-control-plane", Network: "kind", IP: ip, Created: created,
		Labels: map[string]string{node.ClusterLabel: name, node.RoleLabel: node.ControlPlane},
		Mounts: []string{node.Mark{Lab: name, Slot: slot}.MountPoint()},
	})
}

func find(t *testing.T, e *dockertest.Engine, name string) (Pool, error) {
	t.Helper()
	nodes, err := node.List(t.Context(), e, name)
	if err != nil {
		t.Fatal(err)
	}
	return Find(t.Context(), e, nodes)
}

func TestFind(t *testing.T) {
	tests := []struct {
		name    string
		ipam    []network.IPAMConfig
		slot    int
		ip      string
		used    []string // running containers
		stopped []string // stopped ones with a fixed address
		want    string
		fails   string
	}{
		{name: "/16", ipam: ipam("172.18.0.0/16"), ip: "172.18.0.2", want: "172.18.255.240-172.18.255.254"},
		{
			name: "/16, second lab", ipam: ipam("172.18.0.0/16"), slot: 1, ip: "172.18.0.2",
			want: "172.18.255.224-172.18.255.239",
		},
		{name: "/20", ipam: ipam("192.168.16.0/20"), ip: "192.168.16.2", want: "192.168.31.240-192.168.31.254"},
		{name: "/24", ipam: ipam("10.1.2.0/24"), ip: "10.1.2.2", want: "10.1.2.240-10.1.2.254"},
		{name: "/26", ipam: ipam("10.1.2.64/26"), ip: "10.1.2.66", want: "10.1.2.124-10.1.2.126"},
		{name: "/28", ipam: ipam("10.1.2.16/28"), ip: "10.1.2.18", want: "10.1.2.28-10.1.2.30"},
		{name: "/28, second lab", ipam: ipam("10.1.2.16/28"), slot: 1, ip: "10.1.2.18", want: "10.1.2.24-10.1.2.27"},
		{
			name: "IPv6 listed first", ipam: ipam("fc00:f853:ccd:e793::/64", "172.18.0.0/16"), ip: "172.18.0.2",
			want: "172.18.255.240-172.18.255.254",
		},
		{
			name: "IPv6 listed last", ipam: ipam("172.18.0.0/16", "fc00:f853:ccd:e793::/64"), ip: "172.18.0.2",
			want: "172.18.255.240-172.18.255.254",
		},
		{
			name: "a container in the middle", ipam: ipam("172.18.0.0/16"), ip: "172.18.0.2",
			used: []string{"172.18.255.250"}, want: "172.18.255.240-172.18.255.249,172.18.255.251-172.18.255.254",
		},
		{
			name: "a stopped container's fixed address", ipam: ipam("172.18.0.0/16"), ip: "172.18.0.2",
			stopped: []string{"172.18.255.254"}, want: "172.18.255.240-172.18.255.253",
		},
		{
			name: "gateway at the top",
			ipam: []network.IPAMConfig{{
				Subnet:     netip.MustParsePrefix("10.1.2.0/24"),
				Gateway:    netip.MustParseAddr("10.1.2.254"),
				AuxAddress: map[string]netip.Addr{"dns": netip.MustParseAddr("10.1.2.253")},
			}}, ip: "10.1.2.2",
			want: "10.1.2.240-10.1.2.252",
		},
		{
			name: "nothing left", ipam: ipam("10.1.2.16/28"), ip: "10.1.2.18",
			used: []string{"10.1.2.28", "10.1.2.29", "10.1.2.30"}, fails: "every address",
		},
		{name: "no IPv4", ipam: ipam("fc00::/64"), ip: "172.18.0.2", fails: "no IPv4 subnet"},
		{name: "too small", ipam: ipam("10.1.2.0/29"), ip: "10.1.2.2", fails: "smaller than a /28"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &dockertest.Engine{Networks: map[string][]network.IPAMConfig{"kind": tt.ipam}}
			lab(e, "ambient", tt.ip, tt.slot, 1)
			for i, ip := range tt.used {
				e.Add(dockertest.Container{Name: fmt.Sprintf("used%d", i), Network: "kind", IP: ip})
			}
			for i, ip := range tt.stopped {
				e.Add(dockertest.Container{
					Name: fmt.Sprintf("stopped%d", i), Network: "kind", FixedIP: ip,
					Stopped: true,
				})
			}
			pool, err := find(t, e, "ambient")
			if tt.fails != "" {
				if !problem.Is(err, problem.PoolExhausted) || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("got %v, want a problem saying %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var ranges []string
			for _, r := range pool.Ranges {
				ranges = append(ranges, r.String())
			}
			if got := strings.Join(ranges, ","); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestLabsOnOneNetworkKeepApart(t *testing.T) {
	e := &dockertest.Engine{Networks: map[string][]network.IPAMConfig{"kind": ipam("10.1.2.0/24")}}
	if slot, err := Choose(t.Context(), e, "kind"); slot != 0 || err != nil {
		t.Errorf("first lab: %d, %v", slot, err)
	}
	if slot, err := Choose(t.Context(), e, "elsewhere"); slot != 0 || err != nil {
		t.Errorf("a network that does not exist yet: %d, %v", slot, err)
	}
	lab(e, "one", "10.1.2.2", 0, 10)
	if slot, err := Choose(t.Context(), e, "kind"); slot != 1 || err != nil {
		t.Errorf("second lab: %d, %v", slot, err)
	}
	// Two that saw nothing of each other, and one that came later.
	lab(e, "two", "10.1.2.3", 0, 11)
	lab(e, "three", "10.1.2.4", 1, 12)
	e.Add(dockertest.Container{
		Name: "theirs-control-plane", Network: "kind", IP: "10.1.2.5",
		Labels: map[string]string{node.ClusterLabel: "theirs", node.RoleLabel: node.ControlPlane},
	})
	pools := make(map[string]Pool)
	for _, name := range []string{"one", "two", "three", "theirs"} {
		pool, err := find(t, e, name)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := find(t, e, name); err != nil || fmt.Sprint(again) != fmt.Sprint(pool) {
			t.Errorf("%s: %v, then %v, %v", name, pool, again, err)
		}
		for other, p := range pools {
			for _, r := range p.Ranges {
				if pool.Contains(r.First) || pool.Contains(r.Last) {
					t.Errorf("%s %v and %s %v overlap", name, pool.Ranges, other, p.Ranges)
				}
			}
		}
		pools[name] = pool
	}
	if pools["one"].Slot != 0 || pools["three"].Slot != 1 || pools["two"].Slot != 2 {
		t.Errorf("slots one=%d two=%d three=%d, want 0, 2, 1: who was there first, and who was not contested, "+
			"keeps its own", pools["one"].Slot, pools["two"].Slot, pools["three"].Slot)
	}
}

// TestSlots gives each lab its slot: all labs are on one network, listed with the slot that they chose when they were
// created, and with the times at which their nodes were created.
func TestSlots(t *testing.T) {
	type made struct {
		name string
		slot int
		at   []int64
	}
	for _, tt := range []struct {
		name string
		ipam []network.IPAMConfig
		labs []made
		want map[string]int // -1: no slot is left
	}{
		{
			"the older one keeps its slot", ipam("10.1.2.0/24"),
			[]made{{"new", 0, []int64{20}}, {"old", 0, []int64{10}}},
			map[string]int{"old": 0, "new": 1},
		},
		{
			"the first slot is free", ipam("10.1.2.0/24"),
			[]made{{"old", 1, []int64{10}}, {"new", 1, []int64{20}}},
			map[string]int{"old": 1, "new": 0},
		},
		{
			"of the same second, the names decide", ipam("10.1.2.0/24"),
			[]made{{"b", 3, []int64{10}}, {"a", 3, []int64{10}}},
			map[string]int{"a": 3, "b": 0},
		},
		{
			"a lab is as old as its first node", ipam("10.1.2.0/24"),
			[]made{{"x", 2, []int64{10, 30}}, {"y", 2, []int64{20, 5}}, {"z", 2, []int64{7, 7}}},
			map[string]int{"y": 2, "z": 0, "x": 1},
		},
		{
			"the last slot", ipam("10.1.2.0/24"),
			[]made{{"a", 7, []int64{10}}},
			map[string]int{"a": 7},
		},
		{
			"a slot that the network does not have", ipam("10.1.2.0/24"),
			[]made{{"a", 8, []int64{10}}, {"b", 63, []int64{20}}},
			map[string]int{"a": 0, "b": 1},
		},
		{
			"more labs than slots", ipam("10.1.2.16/28"),
			[]made{{"a", 0, []int64{10}}, {"b", 0, []int64{20}}, {"c", 0, []int64{30}}},
			map[string]int{"a": 0, "b": 1, "c": -1},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &dockertest.Engine{Networks: map[string][]network.IPAMConfig{"kind": tt.ipam}}
			for _, l := range tt.labs {
				for i, created := range l.at {
					e.Add(dockertest.Container{
						Name: fmt.Sprintf("%s-%d", l.name, i), Network: "kind", Created: created,
						Labels: map[string]string{node.ClusterLabel: l.name, node.RoleLabel: node.ControlPlane},
						Mounts: []string{node.Mark{Lab: l.name, Slot: l.slot}.MountPoint()},
					})
				}
			}
			for name, want := range tt.want {
				pool, err := find(t, e, name)
				switch {
				case want < 0 && !problem.Is(err, problem.PoolExhausted):
					t.Errorf("%s has slot %d, %v; want none", name, pool.Slot, err)
				case want >= 0 && (err != nil || pool.Slot != want):
					t.Errorf("%s has slot %d, %v; want %d", name, pool.Slot, err, want)
				}
			}
		})
	}
}

// The slot of a user's own cluster must not change with a version of this program: an installed load balancer uses it.
// The hashes are the published FNV-1a values of "" (0x811c9dc5), "a" (0xe40c292c) and "foobar" (0xbf9cf968).
func TestSlotOfAClusterOfTheUser(t *testing.T) {
	on := func(subnet string, taken ...int) state {
		s := state{network: "kind", subnet: netip.MustParsePrefix(subnet)}
		for i, slot := range taken {
			s.owners = append(s.owners, owner{lab: fmt.Sprintf("lab%d", i), slot: slot, created: int64(i)})
		}
		return s
	}
	for _, tt := range []struct {
		on      state
		cluster string
		want    int // -1: no slot is left
	}{
		{on("10.1.2.0/24"), "", 4 + 0x811c9dc5%4},
		{on("10.1.2.0/24"), "a", 4 + 0xe40c292c%4},
		{on("172.18.0.0/16"), "a", 32 + 0xe40c292c%32},
		{on("172.18.0.0/16"), "foobar", 32 + 0xbf9cf968%32},
		{on("10.1.2.16/28"), "foobar", 1},
		{on("10.1.2.0/24", 0, 1, 2, 3), "a", 4},
		{on("10.1.2.0/24", 4), "a", 5},
		{on("10.1.2.0/24", 4, 5, 6), "a", 7},
		{on("10.1.2.0/24", 5, 6, 7), "", 4},
		{on("10.1.2.0/24", 4, 5, 6, 7), "a", -1},
		{on("10.1.2.0/24", 0, 1, 2, 3, 4, 5, 6, 7), "a", -1},
	} {
		got, err := tt.on.slotOf(tt.cluster)
		switch {
		case tt.want < 0 && !problem.Is(err, problem.PoolExhausted):
			t.Errorf("%q next to %v: slot %d, %v; want none", tt.cluster, tt.on.owners, got, err)
		case tt.want >= 0 && (err != nil || got != tt.want):
			t.Errorf("%q next to %v: slot %d, %v; want %d", tt.cluster, tt.on.owners, got, err, tt.want)
		}
	}
}

// TestPlanned computes the addresses of a lab that does not exist yet, next to one that does.
func TestPlanned(t *testing.T) {
	e := &dockertest.Engine{Networks: map[string][]network.IPAMConfig{
		"kind": ipam("172.18.0.0/16"), "small": ipam("10.1.2.0/29"),
	}}
	lab(e, "ambient", "172.18.0.2", 0, 1)
	pool, err := Planned(t.Context(), e, "kind")
	if err != nil || pool.Network != "kind" || pool.Slot != 1 || len(pool.Ranges) != 1 ||
		pool.Ranges[0].String() != "172.18.255.224-172.18.255.239" {
		t.Errorf("got %+v, %v; want the second slot", pool, err)
	}
	if _, err := Planned(t.Context(), e, "none"); !errdefs.IsNotFound(err) {
		t.Errorf("without the network: %v", err)
	}
	if _, err := Planned(t.Context(), e, "small"); !problem.Is(err, problem.PoolExhausted) {
		t.Errorf("with a network that is too small: %v", err)
	}
}

func TestRange(t *testing.T) {
	r := Range{First: netip.MustParseAddr("10.0.0.254"), Last: netip.MustParseAddr("10.0.1.3")}
	if got := r.Size(); got != 6 {
		t.Errorf("%s has %d addresses, want 6", r, got)
	}
	for address, want := range map[string]bool{
		"10.0.0.253": false, "10.0.0.254": true, "10.0.0.255": true, "10.0.1.3": true, "10.0.1.4": false, "::1": false,
	} {
		if got := r.Contains(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s contains %s: %v, want %v", r, address, got, want)
		}
	}
	one := Range{First: r.First, Last: r.First}
	if pool := (Pool{Ranges: []Range{one, r}}); one.Size() != 1 || pool.Size() != 7 {
		t.Errorf("%s has %d addresses, with %s %d; want 1 and 7", one, one.Size(), r, pool.Size())
	}
	_, err := slotRange(netip.MustParsePrefix("10.1.2.0/24"), 8)
	if want := "subnet 10.1.2.0/24 has no slot 8; it has slots 0 to 7"; fmt.Sprint(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestNoDockerNetwork(t *testing.T) {
	_, err := Find(t.Context(), &dockertest.Engine{}, []node.Node{{Name: "gke-1"}})
	if !problem.Is(err, problem.PoolExhausted) || !strings.Contains(problem.All(err)[0].Advice[0], "SM_METALLB=off") {
		t.Errorf("got %v", err)
	}
}

func TestObjectsGolden(t *testing.T) {
	pool := Pool{Ranges: []Range{
		{First: netip.MustParseAddr("172.18.255.240"), Last: netip.MustParseAddr("172.18.255.249")},
		{First: netip.MustParseAddr("172.18.255.251"), Last: netip.MustParseAddr("172.18.255.254")},
	}}
	got, err := json.MarshalIndent(Objects(pool), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "objects.json")
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// FuzzSlots holds for every subnet of the supported sizes: slots lie in the upper half, do not overlap, and never hold
// the broadcast address or a taken one.
func FuzzSlots(f *testing.F) {
	f.Add(uint32(0xac120000), 16, uint32(0xac12fffa), uint32(0xac120001))
	f.Add(uint32(0x0a010210), 28, uint32(0x0a01021c), uint32(0x0a010211))
	f.Add(uint32(0xffffff00), 24, uint32(0xfffffffe), uint32(0))
	f.Add(uint32(0), 8, uint32(0x00ffffff), uint32(1))
	f.Fuzz(func(t *testing.T, base uint32, bits int, taken1, taken2 uint32) {
		bits = 8 + abs(bits)%(maxBits-8+1)
		subnet := netip.PrefixFrom(address(base), bits).Masked()
		first := number(subnet.Addr())
		last := first + uint32(1)<<(32-bits) - 1
		taken := map[netip.Addr]bool{address(taken1): true, address(taken2): true}
		size, count := slots(subnet)
		if count < 2 || size < minSlotSize || size > maxSlotSize || uint64(size*count)*2 > uint64(1)<<(32-bits) {
			t.Fatalf("%s: %d slots of %d", subnet, count, size)
		}
		seen := make(map[uint32]int)
		for i := range count {
			whole, err := slotRange(subnet, i)
			if err != nil {
				t.Fatal(err)
			}
			for n := number(whole.First); ; n++ {
				if n <= first+(last-first)/2 || n >= last {
					t.Fatalf("%s slot %d %s: %s is not in the upper half, or is the broadcast address", subnet, i,
						whole, address(n))
				}
				if other, ok := seen[n]; ok {
					t.Fatalf("%s: slots %d and %d share %s", subnet, other, i, address(n))
				}
				seen[n] = i
				if n == number(whole.Last) {
					break
				}
			}
			left, total := without(whole, taken), 0
			for _, r := range left {
				total += r.Size()
				for a := range taken {
					if r.Contains(a) {
						t.Fatalf("%s holds %s, which is taken", r, a)
					}
				}
			}
			for a := range taken {
				if whole.Contains(a) {
					total++
				}
			}
			if total != whole.Size() {
				t.Fatalf("%s without %v is %v: %d addresses are accounted for, want %d", whole, taken, left, total,
					whole.Size())
			}
		}
		if _, err := slotRange(subnet, count); err == nil {
			t.Fatalf("%s gives slot %d of %d", subnet, count, count)
		}
	})
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}

func TestGenerated(t *testing.T) {
	for kind, want := range map[string]bool{
		"ServiceL2Status": true, "ServiceBGPStatus": true, "ConfigurationState": true, "IPAddressPool": false,
	} {
		obj := &metav1.PartialObjectMetadata{}
		obj.SetGroupVersionKind(schema.GroupVersionKind{Group: "metallb.io", Version: "v1beta1", Kind: kind})
		if got := Generated(obj); got != want {
			t.Errorf("%s: %v", kind, got)
		}
	}
	obj := &metav1.PartialObjectMetadata{}
	obj.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "ServiceL2Status"})
	if Generated(obj) {
		t.Error("of another group")
	}
}

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
