package mesh

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambientlab/internal/lesson/params"
)

// captured reads testdata/mesh: dumps of Envoy 1.40 that was configured by istiod's generator of release 1.31 over ADS,
// with the objects in specs; sections that no test reads (bootstrap, clusters, secrets) are taken out.
func captured(t *testing.T, name string) *Dump {
	t.Helper()
	data := capturedBytes(t, name)
	d, err := ParseDump(data)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func capturedBytes(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join("..", "..", "testdata", "mesh", name)
	file, err := os.Open(path + ".json")
	if err != nil {
		// The large one is packed.
		if file, err = os.Open(path + ".json.gz"); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = file.Close() }()
	var in io.Reader = file
	if strings.HasSuffix(file.Name(), ".gz") {
		if in, err = gzip.NewReader(file); err != nil {
			t.Fatal(err)
		}
	}
	data, err := io.ReadAll(in)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The tables next to the dumps were written by istioctl's own writer
// (istio.io/istio/istioctl/pkg/writer/envoy/configdump, release 1.31) from the same dumps.
func TestTablesEqualIstioctl(t *testing.T) {
	for _, name := range []string{
		"waypoint", "waypoint-fault", "waypoint-authz", "waypoint-both", "waypoint-nack", "gateway", "gateway-no-label",
		"sidecar",
	} {
		d := captured(t, name)
		for kind, write := range map[string]func(io.Writer) error{
			"listeners": d.WriteListeners,
			"routes":    d.WriteRoutes,
		} {
			var got bytes.Buffer
			if err := write(&got); err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join("..", "..", "testdata", "mesh", name+"."+kind+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("%s %s (-istioctl +lab):\n%s", name, kind, diff)
			}
		}
	}
}

// Whatever a proxy answers, reading it must not bring the lab down.
func FuzzParseDump(f *testing.F) {
	f.Add([]byte(`{"configs":[{"@type":"x.ListenersConfigDump",` +
		`"dynamic_listeners":[{"active_state":{"listener":{"filter_chains":[{}]}}}]}]}`))
	f.Add([]byte(`{"configs":[{"@type":"","dynamic_route_configs":[null,1,"x"]}]}`))
	f.Add([]byte(`{"configs":[{"@type":"RoutesConfigDump",` +
		`"staticRouteConfigs":[{"route_config":{"virtual_hosts":[{"domains":["a","a.svc",7],"routes":[{}]}]}}]}]}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		d, err := ParseDump(data)
		if err != nil {
			return
		}
		_ = d.WriteListeners(io.Discard)
		_ = d.WriteRoutes(io.Discard)
		Delays(d, appb(), params.DefaultFault())
		Enforces(d, appb(), Policy{})
		SendsToWaypoint(d, appb(), nil)
		RoutesTo(d, "appb.opssec.in", appb())
	})
}
