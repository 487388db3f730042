package lab

import (
	"archive/zip"
	"context"
	"encoding/base64"
	"html"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"ambientlab/internal/dump"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
)

// dumped collects evidence about a failure, wants the page to name what it should, and gives the files of the zip.
func (b *bench) dumped(name string, failed error, words ...string) map[string]string {
	b.t.Helper()
	start := time.Now()
	run := record.Run{Target: "trouble", Err: failed, Began: start}
	path, err := collectInto(b.t.Context(), b.lab().Env, run, b.t.TempDir())
	if err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	took := time.Since(start)
	archive, err := zip.OpenReader(path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer archive.Close()
	files := map[string]string{}
	for _, file := range archive.File {
		content, err := fs.ReadFile(archive, file.Name)
		if err != nil {
			b.t.Fatal(err)
		}
		files[file.Name] = string(content)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Logf("dump of %s: %d KiB, %d files in %s; missing: %s", name, info.Size()>>10, len(files),
		took.Round(10*time.Millisecond), strings.ReplaceAll(files[dump.MissingName], "\n", "; "))
	if info.Size() > dump.Limit {
		b.t.Errorf("%s: the dump has %d bytes", name, info.Size())
	}
	page := html.UnescapeString(files[dump.PageName])
	for _, word := range words {
		if !strings.Contains(page, word) {
			b.t.Errorf("%s: the page does not name %q", name, word)
		}
	}
	return files
}

// secretsStayOut plants secrets in the cluster and on this machine, and searches a dump for them.
func (b *bench) secretsStayOut() {
	b.t.Helper()
	ctx, kube := b.t.Context(), b.kube()
	const value, variable, header = "planted-in-a-Secret-1", "planted-in-a-variable-2", "planted-in-a-header-3"
	const kubeconfigToken, person = "planted-in-a-kubeconfig-6", "planted-in-a-folder-7"
	docker := b.t.TempDir()
	b.t.Setenv("DOCKER_CONFIG", docker)
	b.t.Setenv("PLANTED_TOKEN", "planted-in-the-environment-4")
	registry := base64.StdEncoding.EncodeToString([]byte("ada:planted-in-a-registry-5"))
	if err := os.WriteFile(filepath.Join(docker, "config.json"),
		[]byte(`{"auths":{"registry.example.com":{"auth":"`+registry+`"}}}`), 0o600); err != nil {
		b.t.Fatal(err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		b.t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(b.Settings.Kubeconfig)
	if err != nil {
		b.t.Fatal(err)
	}
	config.AuthInfos["planted"] = &api.AuthInfo{Token: kubeconfigToken}
	if err := clientcmd.WriteToFile(*config, b.Settings.Kubeconfig); err != nil {
		b.t.Fatal(err)
	}
	_, err = kube.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "planted"}, Data: map[string][]byte{"value": []byte(value)},
	}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = kube.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "planted"}, Data: map[string]string{
			"copy": "found " + value + " and " + base64.StdEncoding.EncodeToString([]byte(value)), "registry": registry,
			"log": "GET / HTTP/1.1\nAuthorization: Bearer " + header + "\nCookie: session=" + header + "\n",
			"env": "planted-in-the-environment-4", "kubeconfig": "sent " + kubeconfigToken,
			"home": "reading " + home + "/.kube/config and /home/" + person + "/.docker",
		},
	}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = kube.CoreV1().Pods("default").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "planted"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "c", Image: "example.com/none:1", Env: []corev1.EnvVar{{Name: "DB_PASSWORD", Value: variable}},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	failed := problem.New(problem.Internal, nil, "refused %s at https://ada:planted-in-a-registry-5@m.example.com",
		value)
	files := b.dumped("planted secrets", failed)
	if names := fileNames(b.dumped("planted secrets, again", failed)); !slices.Equal(names, fileNames(files)) {
		b.t.Errorf("two dumps of the same lab have other names: %v and %v", names, fileNames(files))
	}
	if !strings.Contains(files["cluster/objects/default/secrets.txt"], "planted") ||
		!strings.Contains(files["cluster/objects/default/configmaps.yaml"], "name: planted") ||
		!strings.Contains(files["cluster/objects/default/pods.yaml"], "DB_PASSWORD") {
		b.t.Errorf("the objects are not in the dump: %v", fileNames(files))
	}
	key := read(b.t, filepath.Join(b.plane().Dir(), "pki", "admin.key"))
	body := strings.Split(strings.TrimSpace(key), "\n")[1]
	for name, content := range files {
		for _, secret := range []string{
			value, base64.StdEncoding.EncodeToString([]byte(value)), variable, header, registry, body, home + "/",
			"planted-in-a-registry-5", "planted-in-the-environment-4", "PRIVATE KEY", kubeconfigToken, person,
		} {
			if strings.Contains(content, secret) {
				b.t.Errorf("%s holds %q", name, secret)
			}
		}
	}
	for _, remove := range []func(context.Context, string, metav1.DeleteOptions) error{
		kube.CoreV1().Secrets("default").Delete, kube.CoreV1().ConfigMaps("default").Delete,
		kube.CoreV1().Pods("default").Delete,
	} {
		if err := remove(ctx, "planted", metav1.DeleteOptions{}); err != nil {
			b.t.Error(err)
		}
	}
}

func fileNames(files map[string]string) []string {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestParseAround(t *testing.T) {
	for _, c := range []struct {
		line, says    string
		lessons, keep string
		command       string
	}{
		{line: "sm:run -- true", lessons: "apps", keep: keepNever, command: "true"},
		{
			line: "sm:run -lessons=authz -keep=failure -- sh -c x -keep=never -- y", lessons: "apps waypoint authz",
			keep: keepFailure, command: "sh -c x -keep=never -- y",
		},
		{line: "SM:RUN -Lessons=none -KEEP=always -- true sm:run", keep: keepAlways, command: "true sm:run"},
		{line: "sm:run", says: "no command"},
		{line: "sm:run true", says: "no command"},
		{line: "sm:run --", says: "no command"},
		{line: "sm:run -keep=maybe -- true", says: `-keep="maybe" is not accepted; accepted: failure, always, never`},
		{line: "sm:run -lessons=no -- true", says: `-lessons="no" is not accepted`},
		{line: "sm:run -verbose -- true", says: `does not know "-verbose"`},
		{line: "sm:run -- no-such-program", says: `the command "no-such-program" cannot be run`},
	} {
		got, err := parseAround(strings.Fields(c.line))
		if c.says != "" {
			if !problem.Is(err, problem.SettingInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.line, err)
			}
			continue
		}
		var lessons []string
		for _, l := range got.lessons {
			lessons = append(lessons, l.Name)
		}
		command := strings.TrimSpace(got.command.Name + " " + strings.Join(got.command.Args, " "))
		if err != nil || strings.Join(lessons, " ") != c.lessons || got.keep != c.keep || command != c.command {
			t.Errorf("%s: %v %s %q, %v", c.line, lessons, got.keep, command, err)
		}
	}
}

func TestNodeLog(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for name, want := range map[string]string{
		"n1/kubelet.log":            "n1/kubelet.log",
		"etcd.log":                  "etcd.log",
		"etcd.log.before":           "etcd.before.log",
		"n1/pods/x/y/0.log":         "",
		"n1/images.log":             "n1/images.log",
		"n1/inspect.json":           "",
		"n1/containers/a_b_c-1.log": "",
		"n1/containers/etcd-n1_kube-system_etcd-" + id + ".log": "n1/containers/etcd-n1_kube-system_etcd.log",
	} {
		if got := nodeLog(name); got != want {
			t.Errorf("%s becomes %q, want %q", name, got, want)
		}
	}
}

// The names of pods are others in every run; the folders of a dump are not.
func TestPodFolders(t *testing.T) {
	yes := true
	pod := func(name, node, owner, hash string) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}}
		p.Spec.NodeName = node
		if owner != "" {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: owner, Controller: &yes}}
			p.Labels = map[string]string{"pod-template-hash": hash}
		}
		return p
	}
	for _, c := range []struct {
		pods []corev1.Pod
		want string
	}{
		{
			[]corev1.Pod{pod("b-6d-x1", "n2", "b-6d", "6d"), pod("b-6d-x", "n1", "b-6d", "6d"), pod("a", "n1", "", "")},
			"pods/default/b-2 pods/default/b-1 pods/default/a-1",
		},
		{
			[]corev1.Pod{pod("a", "n1", "", ""), pod("b-7f-q", "n1", "b-7f", "7f"), pod("b-7f-p", "n2", "b-7f", "7f")},
			"pods/default/a-1 pods/default/b-1 pods/default/b-2",
		},
	} {
		if got := strings.Join(podFolders(c.pods), " "); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
