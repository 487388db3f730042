package probe

import "ambientlab/internal/probe/traffic"

// What the tests of package probe_test need of this package. They use the lessons' claims, and the lessons import this
// package.
var (
	Conclude = conclude
	PodOf    = podOf
)

// Shots gives the controls of a claim and its shot.
func (c Claim) Shots() []Shot { return c.shots() }

// Load turns a shot into a batch.
func (e Env) Load(s Shot) (traffic.Load, error) {
	e, err := e.withDefaults()
	if err != nil {
		return traffic.Load{}, err
	}
	load, _ := e.load(s)
	return load, nil
}
