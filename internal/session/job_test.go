package session

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// Jobs that run at the same time on one host get different names, and the steps of one job the same.
func TestJobName(t *testing.T) {
	taken := map[string]string{}
	for i := range 1000 {
		n := fmt.Sprint(i)
		for platform, job := range map[string][]string{
			"GitHub, another run": {"GITHUB_RUN_ID", n, "GITHUB_JOB", "e2e", "RUNNER_NAME", "host-1"},
			"GitHub, a matrix":    {"GITHUB_RUN_ID", "one", "GITHUB_JOB", "e2e", "RUNNER_NAME", "host-" + n},
			"GitLab":              {"CI_JOB_ID", n, "CI_RUNNER_ID", "1"},
			"Buildkite":           {"BUILDKITE_JOB_ID", n},
			"Jenkins":             {"BUILD_TAG", "jenkins-e2e-5", "WORKSPACE", "/ws/e2e@" + n},
			"unknown":             {"FOLDER", "/folder-" + n},
		} {
			getenv := env(append(job, "CI", "true")...)
			name := jobName(getenv, "host", getenv("FOLDER"))
			who := platform + " " + n
			if other := taken[name]; other != "" {
				t.Fatalf("%s and %s have the same name %s", who, other, name)
			}
			taken[name] = who
			if !labName.MatchString(name) {
				t.Fatalf("%s is no valid name", name)
			}
			if again := jobName(getenv, "host", getenv("FOLDER")); again != name {
				t.Fatalf("%s has two names", who)
			}
		}
	}
}

func TestDefaultCluster(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{nil, "^ambient$"},
		{[]string{"CI", "false"}, "^ambient$"},
		{[]string{"CI", "true", "CI_JOB_ID", "5"}, "^lab-[0-9a-f]{12}$"},
		{[]string{"CI", "true", "SM_CLUSTER", "mine"}, "^mine$"},
	} {
		s, err := Load(env(c.env...))
		if err != nil || !regexp.MustCompile(c.want).MatchString(s.Cluster) {
			t.Errorf("%v: %q, %v", c.env, s.Cluster, err)
		}
	}
}

func TestValuesShowNoPassword(t *testing.T) {
	getenv := env("SM_REGISTRY_MIRROR", "https://ada:secret-1@mirror.example.com", "INSTALL_KIND", "y")
	for _, set := range Values(getenv) {
		if strings.Contains(set.Value, "secret-1") {
			t.Errorf("%s=%s", set.Name, set.Value)
		}
		if set.Given != (set.Name == "SM_REGISTRY_MIRROR" || set.Name == "INSTALL_KIND") {
			t.Errorf("%s is given: %t", set.Name, set.Given)
		}
	}
}
