package dump

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
	"ambientlab/internal/redact"
)

// planted are secrets in the forms in which a dump could meet them, by what they are. known are those that this machine
// or the cluster tells; the others have to be found by their form.
var planted = map[string]string{
	"a value of a Secret":         "c0rrectHorseBattery",
	"a key":                       "MHcCAQEEIBplantedkeyplantedkeyplantedkey",
	"a token":                     "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlcGxhbnRlZA",
	"an Authorization header":     "cGxhbnRlZDpoZWFkZXI",
	"a Cookie header":             "session-planted-4711",
	"a password of a registry":    "registryPlanted99",
	"a kubeconfig's key":          base64.StdEncoding.EncodeToString([]byte("-----BEGIN PRIVATE KEY-----\nplanted\n")),
	"the name of a home folder":   "adalovelace",
	"a variable of a pod":         "envPlanted12345",
	"a password in an address":    "urlPlanted777",
	"a token of a CI platform":    "ghs_plantedPlantedPlanted",
	"a value of a Secret, base64": base64.StdEncoding.EncodeToString([]byte("c0rrectHorseBattery")),
}

func texts() string {
	return strings.Join([]string{
		"found " + planted["a value of a Secret"] + " in a file",
		"-----BEGIN EC PRIVATE KEY-----\n" + planted["a key"] + "\n-----END EC PRIVATE KEY-----",
		"mounted " + planted["a token"],
		"> Authorization: Basic " + planted["an Authorization header"],
		`{"headers":{"Cookie":["` + planted["a Cookie header"] + `"]}}`,
		`{"auths":{"registry.example.com":{"username":"u","password":"` + planted["a password of a registry"] + `"}}}`,
		"    client-key-data: " + planted["a kubeconfig's key"],
		"reading /home/" + planted["the name of a home folder"] + "/.kube/config",
		"DB_PASSWORD=" + planted["a variable of a pod"],
		"pulling from https://u:" + planted["a password in an address"] + "@mirror.example.com/v2/",
		"clone with " + planted["a token of a CI platform"],
		"data: " + planted["a value of a Secret, base64"],
	}, "\n") + "\n"
}

func secrets() *redact.Redactor {
	return redact.New([]string{planted["a value of a Secret"], planted["a token of a CI platform"]}, "/home/me")
}

// plantedRun is a run in which every text holds every secret.
func plantedRun() record.Run {
	err := problem.New(problem.NotReady, errors.New(texts()), "Deployment default/appb: %s", texts())
	return record.Run{
		Target: "install", Err: err, Typed: "mage sm:install " + texts(), Took: time.Minute,
		Settings: []record.Setting{{Name: "SM_REGISTRY", Value: texts(), Given: true}},
		Sections: []record.Section{{Title: "Verdicts", Text: texts()}},
		Plans: []record.Plan{{
			Name: "install", Title: "Install", Over: true, Failed: true,
			Steps: []record.Step{{
				ID: "appb", Title: "appb", Outcome: engine.Failed, Message: texts(), Err: err,
				Changes: []engine.Change{{Object: "Deployment appb", Action: engine.Update, Detail: texts()}},
			}},
		}},
	}
}

func unzip(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	reader, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, file := range reader.File {
		opened, err := file.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(opened)
		if err != nil {
			t.Fatal(err)
		}
		files[file.Name] = string(content)
	}
	return files
}

func write(t *testing.T, c Contents, limit int) []byte {
	t.Helper()
	var archive bytes.Buffer
	if err := Write(&archive, c, limit); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func TestNothingSecret(t *testing.T) {
	c := Collect(t.Context(), plantedRun(), []Part{
		{Name: "a log", Collect: func(_ context.Context, add Add) error {
			add("pods/default/appb-1/httpbin.log", []byte(texts()))
			return errors.New(texts())
		}},
	}, secrets(), time.Second)
	files := unzip(t, write(t, c, Limit))
	for name, content := range files {
		for what, secret := range planted {
			if strings.Contains(content, secret) {
				t.Errorf("%s holds %s", name, what)
			}
		}
	}
	for _, want := range []string{"Deployment default/appb", "LAB-NOT-READY", "pods/default/appb-1/httpbin.log"} {
		if !strings.Contains(files[PageName], want) {
			t.Errorf("the page does not name %s", want)
		}
	}
	// Without the redactor the test must find each of them: otherwise it looks for the wrong texts.
	for what, secret := range planted {
		if !strings.Contains(texts(), secret) {
			t.Errorf("%s is not planted", what)
		}
	}
}

// A part that hangs and one that panics are listed; what the others found is there within the budget.
func TestPartsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		never := make(chan struct{})
		defer close(never)
		began := time.Now()
		c := Collect(t.Context(), record.Run{}, []Part{
			{Name: "hangs", Collect: func(context.Context, Add) error { <-never; return nil }},
			{Name: "is slow", Collect: func(ctx context.Context, add Add) error {
				add("slow.txt", []byte("what it has"))
				<-ctx.Done()
				return context.Cause(ctx)
			}},
			{Name: "panics", Collect: func(context.Context, Add) error { panic("oh") }},
			{Name: "fails twice", Collect: func(context.Context, Add) error {
				return errors.Join(errors.New("one"), errors.New("two"))
			}},
			{Name: "works", Collect: func(_ context.Context, add Add) error { add("a.txt", []byte("a")); return nil }},
		}, secrets(), Budget)
		if took := time.Since(began); took > Budget {
			t.Errorf("it took %s", took)
		}
		var missing []string
		for _, m := range c.Missing {
			missing = append(missing, m.Part+": "+m.Why)
		}
		want := []string{
			"fails twice: one", "fails twice: two", "hangs: it did not end: it took longer than 15s",
			"is slow: it took longer than 15s", "panics: panic: oh",
		}
		if !slices.Equal(missing, want) {
			t.Errorf("missing are %q", missing)
		}
		if len(c.Files) != 2 {
			t.Errorf("%d files", len(c.Files))
		}
	})
}

func TestLimits(t *testing.T) {
	noise := func(seed, size int) []byte {
		content := make([]byte, size)
		random := rand.New(rand.NewSource(int64(seed)))
		for i := range content {
			content[i] = "0123456789abcdef"[random.Intn(16)]
			if i%80 == 79 {
				content[i] = '\n'
			}
		}
		return content
	}
	c := Collect(t.Context(), record.Run{}, []Part{{Name: "much", Collect: func(_ context.Context, add Add) error {
		for i := range 8 {
			add(fmt.Sprintf("nodes/n%d/kubelet.txt", i), noise(i, 400<<10))
		}
		add("long.txt", noise(9, 3<<20))
		return nil
	}}}, secrets(), time.Minute)
	const limit = 1 << 20
	archive := write(t, c, limit)
	if len(archive) > limit {
		t.Errorf("the zip has %d bytes", len(archive))
	}
	files := unzip(t, archive)
	if !strings.Contains(files[MissingName], "long.txt: the zip would be larger than its limit") {
		t.Errorf("missing: %s", files[MissingName])
	}
	for _, file := range c.Files {
		if file.Name == "long.txt" && (len(file.Content) > fileLimit+100 ||
			!strings.HasPrefix(string(file.Content), "(the first ")) {
			t.Errorf("%d bytes of a long file are kept", len(file.Content))
		}
	}
	if again := write(t, c, limit); !bytes.Equal(archive, again) {
		t.Error("the same contents give another zip")
	}
}

func TestNamesStayInTheZip(t *testing.T) {
	for name, want := range map[string]string{
		"../../etc/passwd": "etc/passwd", "/a//b": "a/b", `c:\x`: "c__x", "pods/a/b.log": "pods/a/b.log",
	} {
		if got := safe(name); got != want {
			t.Errorf("%s becomes %s, want %s", name, got, want)
		}
	}
}

// The page needs nothing from anywhere, and shows what a cluster says as text.
func TestPage(t *testing.T) {
	const attack = `</script><img src=x onerror=alert(1)><script>alert(2)</script>`
	run := record.Run{
		Target: "apps", Err: problem.New(problem.CrashLoop, errors.New(attack), "pod default/appb-1"),
		Plans: []record.Plan{{Title: attack, Steps: []record.Step{{Title: attack, Message: attack}}}},
	}
	c := Collect(t.Context(), run, []Part{{Name: "x", Collect: func(_ context.Context, add Add) error {
		add(MapName, []byte(`[{"name":"n1","state":"ready","ready":true,"pods":[{"namespace":"default",`+
			`"name":"appb-1","state":"Running","reason":"CrashLoopBackOff"}]}]`))
		add(EventsName, []byte(`[{"last":"2026-11-26T18:00:00Z","type":"Warning","object":"Pod default/appb-1",`+
			`"reason":"BackOff","message":"<script>x</script>","count":3}]`))
		add("pods/default/appb-1/httpbin.log", []byte(attack))
		return nil
	}}}, secrets(), time.Second)
	page := unzip(t, write(t, c, Limit))[PageName]
	for _, outside := range []string{
		"<img", "<link", "<iframe", " href=", "@import", "url(", "http:", "https:", "ZgotmplZ",
	} {
		if strings.Contains(page, outside) {
			t.Errorf("the page holds %s", outside)
		}
	}
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("the page has %d scripts, want its own", n)
	}
	for _, want := range []string{"CrashLoopBackOff", "BackOff", "(3 times)", "LAB-CRASH-LOOP"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %s", want)
		}
	}
}
