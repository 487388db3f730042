package session

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
)

// Found is what the cluster says about the lab.
type Found struct {
	// Record is what sm:install recorded; nil means that it did not or, without RecordKnown, that it could not be read.
	Record      *Record
	RecordKnown bool
	// LoadBalancer names the cluster's own load balancer, which is not the lab's, or is empty.
	LoadBalancer string
	// TrustDomain is the mesh's; empty where the cluster was not asked.
	TrustDomain string
	// Parts are the parts of the installation that have objects in the cluster.
	Parts map[string]bool
	// Lessons are the parameters of the lessons that are on, as JSON, by the lesson's name.
	Lessons map[string]json.RawMessage
	// Unknown says that a cluster exists and could not be asked; Err is the error, where it was asked.
	Unknown bool
	Err     error
}

// MayHave tells whether a part is, or may be, in the cluster.
func (f Found) MayHave(part string) bool { return f.Unknown || f.Parts[part] }

// lookTimeout bounds the look at what is installed.
const lookTimeout = 15 * time.Second

// look reads what is installed. A cluster that is still to be started is not asked: a client for it must not be made
// before, as a cluster that is created again has other certificates.
func (s *Session) look(ctx context.Context) Found {
	if !s.Info.Exists {
		return Found{}
	}
	if s.Info.State != cluster.Ready {
		return Found{Unknown: true}
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	found, err := s.read(ctx)
	if err == nil {
		found.Parts, err = s.readParts(ctx)
	}
	if err != nil {
		found.Unknown, found.Err = true, err
	}
	return found
}

// Reread gives the session with the record and the lessons that the cluster has now, whatever state it was in when the
// session was opened. It does not look for the parts.
func (s *Session) Reread(ctx context.Context) (*Session, error) {
	found, err := s.read(ctx)
	if err != nil {
		return s, err
	}
	changed := *s
	changed.Found = found
	return &changed, nil
}

func (s *Session) read(ctx context.Context) (found Found, err error) {
	if found.Record, err = s.readRecord(ctx); err != nil {
		return found, err
	}
	found.RecordKnown = true
	if balanced, ok := s.provider.(cluster.Balanced); ok {
		if found.LoadBalancer, err = balanced.LoadBalancer(ctx); err != nil {
			return found, err
		}
	}
	if found.TrustDomain, err = s.readTrustDomain(ctx); err != nil {
		return found, err
	}
	found.Lessons, err = s.readLessons(ctx, Merge(s.Settings, s.Traits, found, AsInstalled).Namespace)
	return found, err
}

// readTrustDomain reads the mesh's trust domain.
func (s *Session) readTrustDomain(ctx context.Context) (string, error) {
	client, err := s.Connect(ctx)
	if err != nil {
		return "", err
	}
	return mesh.TrustDomain(ctx, client.Kube())
}

func (s *Session) readParts(ctx context.Context) (map[string]bool, error) {
	client, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	owned, err := client.Owned(ctx)
	if err != nil {
		return nil, err
	}
	parts := map[string]bool{}
	for part := range owned {
		parts[part] = true
	}
	return parts, nil
}

// The ConfigMap in kube-system that records an installation. Later targets read it, so that the settings need not be
// repeated.
const (
	recordName      = "ambientlab-record"
	recordNamespace = "kube-system"
	// RecordPart is the part of the installation to which the record belongs.
	RecordPart = "record"
)

// Record is what sm:install recorded.
type Record struct {
	// Lab is the lab's name.
	Lab string
	// Namespace, MetalLB ("on" or "off") and Addons are what was installed; Namespace and MetalLB are empty in the
	// record of an old version.
	Namespace, MetalLB string
	Addons             []string
	Substitutes        Substitutes
	// Created is when the record was first written.
	Created time.Time
}

// Object is the ConfigMap that holds the record.
func (r Record) Object() (*unstructured.Unstructured, error) {
	raw, err := json.Marshal(r.Substitutes)
	if err != nil {
		return nil, fmt.Errorf("writing the list of substitutes: %w", err)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": recordName, "namespace": recordNamespace},
		"data": map[string]any{
			"lab": r.Lab, "namespace": r.Namespace, "metallb": r.MetalLB, "addons": strings.Join(r.Addons, ","),
			"substitutes": string(raw),
		},
	}}, nil
}

func recordOf(object *corev1.ConfigMap) (*Record, error) {
	record := &Record{
		Lab: object.Data["lab"], Namespace: object.Data["namespace"], MetalLB: object.Data["metallb"],
		Addons:      strings.FieldsFunc(object.Data["addons"], func(c rune) bool { return c == ',' }),
		Substitutes: Substitutes{}, Created: object.CreationTimestamp.Time,
	}
	if raw := object.Data["substitutes"]; raw != "" {
		if err := json.Unmarshal([]byte(raw), &record.Substitutes); err != nil {
			return record, problem.New(problem.Internal, err, "ConfigMap %s/%s does not hold what sm:install wrote",
				recordNamespace, recordName)
		}
	}
	return record, nil
}

// readRecord reads the record; nil means that there is none.
func (s *Session) readRecord(ctx context.Context) (*Record, error) {
	client, err := s.Connect(ctx)
	if problem.Is(err, problem.ClusterNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	record, err := ReadRecord(ctx, client.Kube())
	if err != nil {
		return nil, err
	}
	return record, nil
}

// ReadRecord reads the record in a cluster; nil means that there is none. Of a record that is damaged it gives what can
// be read, and an error.
func ReadRecord(ctx context.Context, kube kubernetes.Interface) (*Record, error) {
	object, err := kube.CoreV1().ConfigMaps(recordNamespace).Get(ctx, recordName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading ConfigMap %s/%s: %w", recordNamespace, recordName, err)
	}
	return recordOf(object)
}

// Substitutes maps an image's reference to what the image really is.
type Substitutes map[string]string

// Proxy is the substitute of Istio's Envoy, or "".
func (s Substitutes) Proxy() string { return s.of("istio/proxyv2:") }

// Ztunnel is the substitute of ztunnel, or "".
func (s Substitutes) Ztunnel() string { return s.of("istio/ztunnel:") }

// Prometheus is the substitute of Prometheus, and Jaeger that of Jaeger, or "". Neither substitute has web pages.
func (s Substitutes) Prometheus() string { return s.of("prom/prometheus:") }
func (s Substitutes) Jaeger() string     { return s.of("jaegertracing/jaeger:") }

func (s Substitutes) of(part string) string {
	for ref, what := range s {
		if strings.Contains(ref, part) {
			return what
		}
	}
	return ""
}

// BundleSubstitutes lists the substitutes of the bundle in use; without a bundle there are none.
func (s *Session) BundleSubstitutes() Substitutes {
	found := Substitutes{}
	if s.Bundle == nil {
		return found
	}
	for _, image := range s.Bundle.Images() {
		if image.Substitute != "" {
			found[image.Ref] = image.Substitute
		}
	}
	return found
}

// Substitutes tells which images are not what their references say: from the bundle where one is in use, from a
// provider that runs no images, otherwise from the record. The record is read again where the cluster could not be
// asked when the session was opened.
func (s *Session) Substitutes(ctx context.Context) (Substitutes, error) {
	if s.Bundle != nil {
		return s.BundleSubstitutes(), nil
	}
	if provider, ok := s.provider.(cluster.Substituter); ok {
		return provider.Substitutes()
	}
	record, err := s.Found.Record, error(nil)
	if record == nil {
		record, err = s.readRecord(ctx)
	}
	if err != nil || record == nil {
		return Substitutes{}, err
	}
	return record.Substitutes, nil
}

// SubstitutesTold records that the user was told which images are substitutes.
func (s *Session) SubstitutesTold() { s.shared.told = true }

// TellSubstitutes prints which images are not what their references say, unless the user was told.
func (s *Session) TellSubstitutes(ctx context.Context) {
	if s.shared.told {
		return
	}
	s.SubstitutesTold()
	substitutes, err := s.Substitutes(ctx)
	if err != nil {
		s.Tell("the list of substitute images cannot be read: %v", err)
		return
	}
	for _, ref := range slices.Sorted(maps.Keys(substitutes)) {
		s.Tell("substitute: %s is %s", ref, substitutes[ref])
	}
}

// Each lesson that is on has a ConfigMap of its own, which comes and goes with the lesson's objects. It holds what was
// asked for: the proofs compare that with what is there.
const (
	lessonPrefix = "ambientlab-"
	lessonKey    = "asked"
)

// LessonRecord makes the ConfigMap that records a lesson and its parameters.
func LessonRecord(lesson string, parameters any) (*unstructured.Unstructured, error) {
	raw, err := json.Marshal(parameters)
	if err != nil {
		return nil, fmt.Errorf("recording lesson %s: %w", lesson, err)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": lessonPrefix + lesson},
		"data":     map[string]any{lessonKey: string(raw)},
	}}, nil
}

// readLessons reads which lessons are on.
func (s *Session) readLessons(ctx context.Context, namespace string) (map[string]json.RawMessage, error) {
	client, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	list, err := client.Kube().CoreV1().ConfigMaps(namespace).
		List(ctx, metav1.ListOptions{LabelSelector: apply.LabelName + "=" + s.Settings.Cluster})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which lessons are on: %w", err)
	}
	found := map[string]json.RawMessage{}
	for _, record := range list.Items {
		lesson, isLesson := strings.CutPrefix(record.Name, lessonPrefix)
		asked, hasParameters := record.Data[lessonKey]
		if isLesson && hasParameters && record.DeletionTimestamp == nil {
			found[lesson] = json.RawMessage(asked)
		}
	}
	return found, nil
}
