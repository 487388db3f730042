package session

import (
	"strings"
	"testing"

	"ambientlab/internal/cluster"
)

func TestMerge(t *testing.T) {
	own := cluster.Traits{LoadBalancer: true}
	theirs := cluster.Traits{}
	simulated := cluster.Traits{LoadBalancer: true, NoAddons: []string{"prometheus", "grafana", "jaeger", "kiali"}}
	shop := &Record{Namespace: "shop", MetalLB: "off", Addons: []string{"prometheus"}}
	withMetalLB := &Record{Namespace: "shop", MetalLB: "on", Addons: nil}
	old := &Record{}
	const all = "prometheus,grafana,jaeger,kiali"
	for _, tc := range []struct {
		name      string
		settings  []string
		traits    cluster.Traits
		record    *Record
		rule      Rule
		namespace string
		addons    string
		metalLB   bool
	}{
		{"nothing said, nothing there", nil, own, nil, AsInstalled, "default", all, true},
		{"a cluster of the user's", nil, theirs, nil, AsAsked, "default", all, false},
		{"MetalLB asked for", []string{"SM_METALLB", "on"}, theirs, nil, AsAsked, "default", all, true},
		{"MetalLB not wanted", []string{"SM_METALLB", "off"}, own, nil, AsAsked, "default", all, false},
		{"add-ons that cannot run", nil, simulated, nil, AsAsked, "default", "", true},
		{
			"add-ons that are not asked for", nil,
			cluster.Traits{AddonsOnRequest: true},
			nil, AsAsked, "default", "",
			false,
		},
		{
			"and that are",
			[]string{"SM_ADDONS", "prometheus"},
			cluster.Traits{AddonsOnRequest: true},
			nil, AsAsked,
			"default", "prometheus", false,
		},
		{"sm:install goes by the settings", nil, own, shop, AsAsked, "default", all, true},
		{"later targets by the record", nil, own, shop, AsInstalled, "shop", "prometheus", false},
		{"of MetalLB too", nil, theirs, withMetalLB, AsInstalled, "shop", "", true},
		{
			"unless the namespace is given",
			[]string{"SM_NAMESPACE", "mine"},
			own, shop, AsInstalled, "mine",
			"prometheus", false,
		},
		{
			"or the default namespace",
			[]string{"SM_NAMESPACE", "default"},
			own, shop, AsInstalled, "default",
			"prometheus", false,
		},
		{
			"unless the add-ons are given",
			[]string{"SM_ADDONS", "kiali"},
			own, shop, AsInstalled, "shop", "kiali",
			false,
		},
		{"or no add-ons", []string{"SM_ADDONS", "none"}, own, shop, AsInstalled, "shop", "", false},
		{"unless MetalLB is given", []string{"SM_METALLB", "on"}, own, shop, AsInstalled, "shop", "prometheus", true},
		{"an old record says less", nil, own, old, AsInstalled, "default", "", true},
		{
			"sm:delete by the record alone",
			[]string{"SM_NAMESPACE", "mine", "SM_ADDONS", "kiali", "SM_METALLB", "on"},
			own, shop, AsRecorded, "shop", "prometheus", false,
		},
		{
			"without one by the settings",
			[]string{"SM_NAMESPACE", "mine", "SM_ADDONS", "kiali"},
			own, nil, AsRecorded,
			"mine", "kiali", true,
		},
	} {
		settings, err := Load(env(tc.settings...))
		if err != nil {
			t.Fatal(err)
		}
		got := Merge(settings, tc.traits, Found{Record: tc.record}, tc.rule)
		if got.Namespace != tc.namespace || strings.Join(got.Addons, ",") != tc.addons || got.MetalLB != tc.metalLB ||
			got.LoadBalancer != tc.metalLB || got.Removing != (tc.rule == AsRecorded) {
			t.Errorf("%s: got %+v", tc.name, got)
		}
	}
	settings, err := Load(env())
	if err != nil {
		t.Fatal(err)
	}
	if got := Merge(settings, own, Found{}, AsInstalled).TrustDomain; got != "cluster.local" {
		t.Errorf("without a mesh the trust domain is %q", got)
	}
	if got := Merge(settings, own, Found{TrustDomain: "lab.example"}, AsInstalled).TrustDomain; got != "lab.example" {
		t.Errorf("the trust domain of the mesh is not followed: %q", got)
	}
	if got := Merge(settings, theirs, Found{LoadBalancer: "servicelb"}, AsInstalled); got.MetalLB || !got.LoadBalancer {
		t.Errorf("a cluster with a load balancer: got %+v", got)
	}
}
