package apply

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/engine"
)

// objects decodes a YAML stream.
func objects(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	var objs []*unstructured.Unstructured
	for doc := range strings.SplitSeq("\n"+text, "\n---") {
		data, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if string(data) == "null" {
			continue
		}
		obj := &unstructured.Unstructured{}
		if err := obj.UnmarshalJSON(data); err != nil {
			t.Fatal(err)
		}
		objs = append(objs, obj)
	}
	return objs
}

func configMap(name, key, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {" + key + ": '" + value +
		"'}\n---\n"
}

// fixed is a Part of a Set that is known.
func fixed(set Set) Objects { return func(context.Context) (Set, error) { return set, nil } }

// Diff computes the changes of a Set, as a step's Check does where nothing is missing.
func (c *Client) Diff(ctx context.Context, set Set) ([]engine.Change, error) {
	computed, err := c.changes(ctx, set.Name, fixed(set))
	if err != nil {
		return nil, err
	}
	return computed.judge(ctx)
}

// Apply makes the changes of a Set, as a step does on its first run.
func (c *Client) Apply(ctx context.Context, set Set) ([]engine.Change, error) {
	computed, err := c.changes(ctx, set.Name, fixed(set))
	if err != nil {
		return nil, err
	}
	return computed.apply(ctx)
}

// Wait waits until a Set is ready, as a step does after it was applied.
func (c *Client) Wait(ctx context.Context, set Set) error {
	objs, err := c.objects(set)
	if err != nil {
		return err
	}
	if err := c.waitFor(ctx, objs); err != nil {
		return fmt.Errorf("waiting for %s: %w", set.Name, err)
	}
	return nil
}

// Ready says why a Set is not ready.
func (c *Client) Ready(ctx context.Context, set Set) (string, error) {
	objs, err := c.objects(set)
	if err != nil {
		return "", err
	}
	live, err := c.fetch(ctx, objs)
	if err != nil {
		return "", err
	}
	return c.reason(ctx, objs, live)
}
