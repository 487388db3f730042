package lab

import (
	"context"
	"strings"
	"time"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
)

// installed is which parts earlier runs have put into the cluster.
type installed struct {
	unknown bool // there is a cluster, and it cannot be asked yet
	parts   map[string]bool
}

func (i installed) has(part string) bool { return i.unknown || i.parts[part] }

// lookTime bounds the look at what is installed.
const lookTime = 15 * time.Second

// lookForParts asks the cluster what of the lab is in it. Of one that is still to be started it only learns that there
// may be something: the client must not be made before that, as a cluster that is made anew has other certificates.
func (l *Lab) lookForParts(ctx context.Context) error {
	info, err := l.provider.Inspect(ctx)
	if err != nil {
		return err
	}
	return l.lookForPartsIn(ctx, info)
}

// seeParts is for targets that only show: what cannot be asked is left out of what they show.
func (l *Lab) seeParts(ctx context.Context, info cluster.Info) error {
	err := l.lookForPartsIn(ctx, info)
	l.installed.unknown = false
	return err
}

func (l *Lab) lookForPartsIn(ctx context.Context, info cluster.Info) error {
	l.installed = installed{unknown: info.Exists}
	if !info.Exists || info.State != cluster.Ready && l.Settings.Provider != ProviderExisting {
		return nil
	}
	looking, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	client, err := l.connect(looking)
	if err != nil {
		return err
	}
	owned, err := client.Owned(looking)
	if err != nil {
		return context.Cause(ctx) // the steps look for themselves, and say what is wrong
	}
	l.installed = installed{parts: map[string]bool{}}
	for part := range owned {
		l.installed.parts[part] = true
	}
	return nil
}

// optional is a step for a part that the settings may leave out. One that they no longer ask for, and that an earlier
// run has installed, stays in the plan with an empty set: that is what takes it away.
func (l *Lab) optional(id, title string, asked bool, needs []string, render func(context.Context) (objects, error)) engine.Step {
	switch {
	case l.wants(id, asked):
		return l.setStep(id, title, needs, render)
	case l.leaves(id):
		return l.setStep(id, title+l.unwanted(), needs, func(context.Context) (objects, error) { return nil, nil })
	default:
		return engine.Step{}
	}
}

const (
	leaving = ": taken away, as it is no longer asked for"
	absent  = ": none, as it is not asked for"
)

// unwanted ends the title of a step that takes away what the settings do not ask for.
func (l *Lab) unwanted() string {
	if l.installed.unknown { // most likely it never was there
		return absent
	}
	return leaving
}

// wants tells whether a part is to be in the plan: as the settings ask, or to be taken back, as the cluster has it.
func (l *Lab) wants(part string, asked bool) bool {
	if l.removing {
		return l.installed.has(part)
	}
	return asked
}

// leaves tells of a part that is not wanted whether there is something of it to take away.
func (l *Lab) leaves(part string) bool { return !l.removing && l.installed.has(part) }

// adoptRecord takes what was installed for what is meant, as far as the environment does not say otherwise: a status
// should not call missing what nobody asked for, and a Gateway should not wait for an address that nobody gives out.
func (l *Lab) adoptRecord(ctx context.Context) error {
	record, err := l.record(ctx)
	if err != nil || record == nil {
		return err
	}
	if !l.Settings.addonsChosen || l.removing {
		l.Settings.Addons = strings.FieldsFunc(record[recordAddons], func(c rune) bool { return c == ',' })
	}
	if namespace := record[recordSpace]; namespace != "" && (!l.Settings.namespaceChosen || l.removing) {
		l.Settings.Namespace = namespace
	}
	if choice := record[recordMetalLB]; choice != "" && (l.Settings.MetalLB == "auto" || l.removing) {
		l.Settings.MetalLB = choice
	}
	return nil
}
