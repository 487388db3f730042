package session

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
)

// defaultCluster is the name of a lab without SM_CLUSTER. In CI it is one of the job's own, the same in all steps of
// the job: jobs that run at the same time may share a host and a Docker engine.
func defaultCluster(getenv func(string) string) string {
	if !inCI(getenv) {
		return "ambient"
	}
	host, _ := os.Hostname() // without them the name is less unique
	folder, _ := os.Getwd()
	return jobName(getenv, host, folder)
}

// platformJob lists, for each CI platform, the variables that together are different in every job that runs at a time,
// and the same in all steps of one. GitHub has no variable for a job of a matrix; a runner runs one job at a time, and
// no two runners of a host have the same name and folder.
var platformJob = [][]string{
	{"GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB", "RUNNER_NAME", "RUNNER_TEMP"},
	{"CI_JOB_ID", "CI_RUNNER_ID", "CI_CONCURRENT_ID"}, // GitLab
	{"BUILDKITE_JOB_ID"},
	{"CIRCLE_WORKFLOW_ID", "CIRCLE_BUILD_NUM", "CIRCLE_NODE_INDEX"},
	{"SYSTEM_JOBID", "AGENT_NAME"}, // Azure Pipelines
	{"TRAVIS_JOB_ID"},
	{"BUILD_TAG", "NODE_NAME", "WORKSPACE"}, // Jenkins
}

// jobName gives the name of a job's lab. Where the platform is not known, it is made of the host and the folder.
func jobName(getenv func(string) string, host, folder string) string {
	parts := []string{host, folder}
	for _, variables := range platformJob {
		if getenv(variables[0]) == "" {
			continue
		}
		parts = nil
		for _, variable := range variables {
			parts = append(parts, getenv(variable))
		}
		break
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return "lab-" + hex.EncodeToString(sum[:6])
}
