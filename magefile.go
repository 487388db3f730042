//go:build mage

// Ambient lab: an Istio ambient mesh on your own machine, with lessons that are proven, not just applied. Start with
// `mage sm:lab`, or go step by step: sm:install, sm:apps, sm:waypoint, sm:fault, sm:authz.
package main

import (
	//mage:import sm
	_ "ambientlab/targets"
)
