//go:build e2e && e2efull

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// TestJobsSideBySide runs several jobs of CI on this host at once, each with a lab on kind and with the name that it
// gets by itself, and with one kubeconfig for all: all labs exist at the same time, answer at addresses of their own,
// and leave nothing. E2E_LABS is how many there are.
func TestJobsSideBySide(t *testing.T) {
	labs := 4
	if given := os.Getenv("E2E_LABS"); given != "" {
		var err error
		if labs, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
	}
	folder := t.TempDir()
	l := newLab(t, "lab-parallel", "SM_CLUSTER=", "SM_WORKERS=0", "SM_ADDONS=none", "SM_TIMEOUT=40m", "CI=true",
		"SM_DUMP="+filepath.Join(folder, "dump"))
	before := l.leaks(t)
	// Each command answers when all labs are there, so that none is deleted before the last is ready.
	command := fmt.Sprintf(`set -e
		echo "$SM_CLUSTER $LAB_GATEWAY $LAB_URL $LAB_CONTEXT" >%[1]s/$SM_CLUSTER.tmp
		mv %[1]s/$SM_CLUSTER.tmp %[1]s/$SM_CLUSTER.lab
		while [ "$(ls %[1]s/*.lab | wc -l)" -lt %[2]d ]; do sleep 1; done
		curl -fsS -o /dev/null -H "Host: $LAB_HOST" "$LAB_URL/headers"`, folder, labs)
	var jobs sync.WaitGroup
	start := time.Now()
	for i := range labs {
		job := *l
		job.env = append(slices.Clone(l.env), fmt.Sprintf("GITHUB_RUN_ID=%d", 4711+i), "GITHUB_JOB=e2e",
			"GITHUB_RUN_ATTEMPT=1", "RUNNER_NAME=runner")
		jobs.Go(func() {
			if r := job.try(t, "sm:run", "-lessons=apps", "--", "sh", "-c", command); r.code != 0 {
				t.Errorf("job %d ends with %d", i, r.code)
			}
		})
	}
	jobs.Wait()
	t.Logf("%d labs were there at once, and the last was deleted %s after the start of the first", labs,
		time.Since(start).Round(time.Second))
	written, err := filepath.Glob(filepath.Join(folder, "*.lab"))
	if err != nil || len(written) != labs {
		t.Errorf("%d labs answered, %v", len(written), err)
	}
	seen := map[string]bool{}
	for _, file := range written {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", raw)
		for _, own := range strings.Fields(string(raw)) {
			if seen[own] {
				t.Errorf("two labs have %s", own)
			}
			seen[own] = true
		}
		l.name = strings.TrimSuffix(filepath.Base(file), ".lab")
		if after := l.leaks(t); after != before {
			t.Errorf("before the labs there was %s, after %s there is %s", before, l.name, after)
		}
	}
	config, err := clientcmd.LoadFromFile(l.kubeconfig)
	if err == nil && len(config.Clusters)+len(config.AuthInfos) > 0 {
		t.Errorf("the kubeconfig still has %d clusters and %d users", len(config.Clusters), len(config.AuthInfos))
	}
}
