//go:build e2e && e2efull

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/probe/traffic"
)

const (
	meshed  = "proxy-mesh"
	outside = "proxy-outside"

	serverImage = "docker.io/mccutchen/go-httpbin:v2.26.0"
	clientImage = "docker.io/fortio/fortio:1.75.3"

	meshURL  = "http://server." + meshed + ":8000"
	plainURL = "http://server." + outside + ":8000"
)

// proxyPods is a server on one worker and clients on both, in the mesh and outside of it.
type proxyPods struct {
	lab    *lab
	kube   kubernetes.Interface
	exec   *traffic.Kube
	server string // the worker of both servers
	other  string // the worker of the clients that are elsewhere
}

func (l *lab) proxyPods(t *testing.T) *proxyPods {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	exec, err := traffic.NewKube(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	kube, _ := l.kube(t)
	p := &proxyPods{lab: l, kube: kube, exec: exec, server: l.name + "-worker", other: l.name + "-worker2"}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		for _, ns := range []string{meshed, outside} {
			if err := kube.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}); err != nil &&
				!apierrors.IsNotFound(err) {
				t.Errorf("deleting namespace %s: %v", ns, err)
			}
		}
	})
	for ns, labels := range map[string]map[string]string{meshed: {"istio.io/dataplane-mode": "ambient"}, outside: nil} {
		p.must(t, ns, func(ctx context.Context) error {
			_, err := kube.CoreV1().Namespaces().
				Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: labels}},
					metav1.CreateOptions{})
			return err
		})
		for _, account := range []string{"server", "client"} {
			p.must(t, ns+"/"+account, func(ctx context.Context) error {
				_, err := kube.CoreV1().ServiceAccounts(ns).
					Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}},
						metav1.CreateOptions{})
				return err
			})
		}
		p.must(t, ns+"/server", func(ctx context.Context) error {
			_, err := kube.CoreV1().Services(ns).Create(ctx, &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: "server"},
				Spec: corev1.ServiceSpec{
					Selector: map[string]string{"app": "server"},
					Ports:    []corev1.ServicePort{{Name: "http", Port: 8000, TargetPort: intstr.FromInt32(8080)}},
				},
			}, metav1.CreateOptions{})
			return err
		})
		p.pod(t, ns, "server", "server", p.server, corev1.Container{
			Name: "app", Image: serverImage,
			ReadinessProbe: &corev1.Probe{
				PeriodSeconds: 1,
				ProbeHandler: corev1.ProbeHandler{
					HTTPGet: &corev1.HTTPGetAction{Path: "/status/200", Port: intstr.FromInt32(8080)},
				},
			},
		})
		for name, node := range map[string]string{"same": p.server, "other": p.other} {
			p.pod(t, ns, name, "client", node,
				corev1.Container{Name: "app", Image: clientImage, Args: []string{"server"}})
		}
	}
	for _, ns := range []string{meshed, outside} {
		p.ready(t, ns)
	}
	return p
}

func (p *proxyPods) must(t *testing.T, what string, do func(context.Context) error) {
	t.Helper()
	if err := do(t.Context()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (p *proxyPods) pod(t *testing.T, ns, name, account, node string, c corev1.Container) {
	t.Helper()
	at := int64(0)
	c.ImagePullPolicy = corev1.PullIfNotPresent
	p.must(t, ns+"/"+name, func(ctx context.Context) error {
		_, err := p.kube.CoreV1().Pods(ns).Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
			Spec: corev1.PodSpec{
				NodeName: node, ServiceAccountName: account, TerminationGracePeriodSeconds: &at,
				Containers: []corev1.Container{c},
			},
		}, metav1.CreateOptions{})
		return err
	})
}

// ready waits until every pod of a namespace is, which in the mesh takes a node proxy that answers istio-cni.
func (p *proxyPods) ready(t *testing.T, ns string) {
	t.Helper()
	p.until(t, "pods of "+ns+" ready", 2*time.Minute, func() error {
		list, err := p.exec.Pods(t.Context(), ns, "")
		if err != nil {
			return err
		}
		for _, pod := range list {
			if !pod.Ready {
				return fmt.Errorf("%s is not", pod.Name)
			}
		}
		return nil
	})
}

// until looks again every now and then until there is no error.
func (p *proxyPods) until(t *testing.T, what string, limit time.Duration, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// run runs fortio in a client's pod.
func (p *proxyPods) run(
	ctx context.Context, ns, pod string, args ...string,
) (stdout, stderr string, code int, err error) {
	var out, errs bytes.Buffer
	code, err = p.exec.Exec(ctx, ns, pod, "app", append([]string{"fortio"}, args...), &out, &errs)
	return out.String(), errs.String(), code, err
}

// ask makes one request on a connection of its own: nil for a 200, else why not.
func (p *proxyPods) ask(t *testing.T, ns, pod, url string, more ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, errs, code, err := p.run(ctx, ns, pod,
		append([]string{"curl", "-quiet", "-timeout", "5s"}, append(more, url)...)...)
	all := out + errs
	switch {
	case err != nil:
		return err
	case code == 0 && strings.Contains(all, " 200 OK"):
		return nil
	}
	return fmt.Errorf("exit code %d: %s", code, all)
}

// measured is what fortio load tells.
type measured struct {
	Codes     map[string]int64 `json:"RetCodes"`
	QPS       float64          `json:"ActualQPS"`
	Durations struct {
		Percentiles []struct{ Percentile, Value float64 }
	} `json:"DurationHistogram"`
}

func (m measured) failed() (n int64) {
	for code, count := range m.Codes {
		if code != "200" {
			n += count
		}
	}
	return n
}

func (m measured) percentile(p float64) float64 {
	for _, v := range m.Durations.Percentiles {
		if v.Percentile == p {
			return v.Value
		}
	}
	return 0
}

func (p *proxyPods) load(ctx context.Context, ns, pod, url string, args ...string) (measured, error) {
	args = append([]string{"load", "-quiet", "-json", "-", "-allow-initial-errors", "-timeout", "2s"},
		append(args, url+"/status/200")...)
	out, errs, code, err := p.run(ctx, ns, pod, args...)
	if err != nil {
		return measured{}, err
	}
	var m measured
	if err := json.Unmarshal([]byte(out), &m); err != nil || len(m.Codes) == 0 {
		return m, fmt.Errorf("fortio load ended with %d and %v: %s%s", code, err, out, errs)
	}
	return m, nil
}
