package probe

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"ambientlab/internal/mesh"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

var errBroken = errors.New("broken")

// podsOnly is a cluster of pods, by selector.
type podsOnly struct {
	pods    map[string][]traffic.Pod
	err     error
	started []traffic.PodSpec
	removed []string
}

func (c *podsOnly) Pods(_ context.Context, _, selector string) ([]traffic.Pod, error) {
	return c.pods[selector], c.err
}

func (c *podsOnly) Exec(context.Context, string, string, string, []string, io.Writer, io.Writer) (int, error) {
	return 0, errBroken
}

func (c *podsOnly) Attach(context.Context, string, string, string, io.Writer) error { return errBroken }

func (c *podsOnly) PodPort(context.Context, string, string, int) (string, func(), error) {
	return "", nil, errBroken
}

func (c *podsOnly) Logs(context.Context, string, string, string, time.Time) (io.ReadCloser, error) {
	return nil, errBroken
}

func (c *podsOnly) StartPod(_ context.Context, spec traffic.PodSpec) (traffic.Pod, error) {
	c.started = append(c.started, spec)
	return traffic.Pod{Name: spec.Name}, c.err
}

func (c *podsOnly) RemovePod(_ context.Context, _, name string) error {
	c.removed = append(c.removed, name)
	return c.err
}

func meshedPods() map[string][]traffic.Pod {
	in := map[string]string{"ambient.istio.io/redirection": "enabled"}
	return map[string][]traffic.Pod{
		"app=appa":                           {{Name: "appa-1", Ready: true, Annotations: in}},
		"app=appb":                           {{Name: "appb-1", Ready: true, IP: "10.0.0.9", Annotations: in}},
		mesh.GatewayLabel + "=appb-waypoint": {{Name: "appb-waypoint-1", Ready: true}},
		"app=ztunnel":                        {{Name: "ztunnel-1"}},
	}
}

func TestCallersOfACluster(t *testing.T) {
	c := &podsOnly{pods: meshedPods()}
	k := newWorld(c, nil, nil, "default")
	for who, want := range map[Caller]string{
		Appa: "http://appb:8000", AppaDirect: "http://10.0.0.9:8080",
		Outsider: "http://appb:8000", Unmeshed: "http://appb:8000",
	} {
		sender, err := k.Caller(t.Context(), who)
		if err != nil || sender.(traffic.InPod).URL != want {
			t.Errorf("%s: %+v %v", who, sender, err)
		}
	}
	if sender, err := k.Caller(t.Context(), Gateway); err != nil || sender.(traffic.Gateway).Host != "appb.opssec.in" {
		t.Errorf("%+v %v", sender, err)
	}
	if _, err := k.Caller(t.Context(), "nobody"); err == nil {
		t.Error("an unknown caller sends")
	}
	// A short-lived caller is started once and removed at the end.
	if _, err := k.Caller(t.Context(), Outsider); err != nil || len(c.started) != 2 {
		t.Errorf("started %+v, %v", c.started, err)
	}
	for _, spec := range c.started {
		outside := spec.Labels["istio.io/dataplane-mode"] == "none"
		if outside != (spec.Name == "lab-unmeshed") ||
			(spec.ServiceAccount == "outsider") != (spec.Name == "lab-outsider") {
			t.Errorf("%+v", spec)
		}
	}
	if err := k.Close(t.Context()); err != nil || len(c.removed) != 2 {
		t.Errorf("removed %q, %v", c.removed, err)
	}
	if err := k.Close(t.Context()); err != nil || len(c.removed) != 2 {
		t.Errorf("removed %q twice, %v", c.removed, err)
	}
	c.err = errBroken
	if _, err := k.Caller(t.Context(), Outsider); !errors.Is(err, errBroken) {
		t.Errorf("a pod that does not start: %v", err)
	}
	if err := k.Close(t.Context()); !errors.Is(err, errBroken) || !slices.Contains(c.removed[2:], "lab-outsider") {
		t.Errorf("what did not start is not removed: %q %v", c.removed, err)
	}
	if _, err := k.Caller(t.Context(), AppaDirect); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if _, err := k.Incarnations(t.Context()); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if _, err := k.Counters(t.Context()); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if err := k.Crossings(t.Context(), time.Now(), func(observe.Crossing) bool { return true }); !errors.Is(err,
		errBroken) {
		t.Error(err)
	}
	empty := newWorld(&podsOnly{}, nil, nil, "default")
	if _, err := empty.Caller(t.Context(), AppaDirect); err == nil ||
		!strings.Contains(err.Error(), "appb has no pod") {
		t.Error(err)
	}
	if _, err := NewKubernetes(&rest.Config{Host: "::bad::"}, nil, nil, mesh.Target{}); err == nil {
		t.Error("a bad host went well")
	}
	found, err := newWorld(&podsOnly{pods: meshedPods()}, nil, nil, "default").Incarnations(t.Context())
	if err != nil || len(found) != 4 || !slices.Contains(found, "ztunnel-1//0") {
		t.Errorf("%q %v", found, err)
	}
}
