package session

import (
	"cmp"
	"slices"

	"ambientlab/internal/cluster"
	"ambientlab/internal/mesh"
)

// Rule says how the settings and the record of the installation become one.
type Rule int

const (
	// AsAsked is for sm:install: the settings alone.
	AsAsked Rule = iota
	// AsInstalled is for every later target: the record, unless the settings say otherwise. A status then does not call
	// an add-on missing that was not installed, and a Gateway does not wait for an address that the lab does not give
	// out.
	AsInstalled
	// AsRecorded is for sm:delete: the record, whatever the settings say by now.
	AsRecorded
)

// Config is the settings of a target, merged with what is installed.
type Config struct {
	// Namespace is where appa, appb and the lessons live.
	Namespace string
	// Addons are the telemetry add-ons, in the order of the documentation.
	Addons []string
	// MetalLB says that the lab gives out load-balancer addresses, and LoadBalancer that the lab or the cluster does.
	MetalLB, LoadBalancer bool
	// NodePort is the gateway's, which the cluster publishes on this host; 0 leaves the choice to Kubernetes.
	NodePort int
	// TrustDomain is the mesh's.
	TrustDomain string
	// Removing says that plans are made to be undone: they then hold what is installed, and nothing else.
	Removing bool
}

// HasAddon tells whether a telemetry add-on is wanted.
func (c Config) HasAddon(name string) bool { return slices.Contains(c.Addons, name) }

// Merge is the only place where the settings and what was found come together.
func Merge(asked Settings, traits cluster.Traits, found Found, rule Rule) Config {
	merged := withRecord(asked, traits, found.Record, rule)
	merged.LoadBalancer = merged.MetalLB || found.LoadBalancer != ""
	merged.NodePort = traits.GatewayNodePort
	merged.TrustDomain = cmp.Or(found.TrustDomain, mesh.DefaultTrustDomain)
	return merged
}

// withRecord merges the record of the installation, where there is one.
func withRecord(asked Settings, traits cluster.Traits, record *Record, rule Rule) Config {
	merged := Config{Namespace: asked.Namespace, MetalLB: asked.MetalLB == "on", Removing: rule == AsRecorded}
	if asked.MetalLB == "auto" {
		merged.MetalLB = traits.LoadBalancer
	}
	for _, addon := range asked.Addons {
		if traits.AddonsOnRequest && !asked.addonsSet {
			break
		}
		if !slices.Contains(traits.NoAddons, addon) {
			merged.Addons = append(merged.Addons, addon)
		}
	}
	if record == nil || rule == AsAsked {
		return merged
	}
	if !asked.addonsSet || rule == AsRecorded {
		merged.Addons = record.Addons
	}
	if record.Namespace != "" && (!asked.namespaceSet || rule == AsRecorded) {
		merged.Namespace = record.Namespace
	}
	if record.MetalLB != "" && (asked.MetalLB == "auto" || rule == AsRecorded) {
		merged.MetalLB = record.MetalLB == "on"
	}
	return merged
}
