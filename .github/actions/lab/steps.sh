#!/usr/bin/env bash
# The steps of the action. All that they need is in the environment: GitHub would put the value of an expression into the
# script itself, and the shell would run it.
set -euo pipefail

# output NAME VALUE sets an output of the step.
output() { printf '%s=%s\n' "$1" "$2" >>"$GITHUB_OUTPUT"; }

# export_to_job NAME VALUE sets a variable in the steps that follow.
export_to_job() { printf '%s=%s\n' "$1" "$2" >>"$GITHUB_ENV"; }

keys() {
  local work=$RUNNER_TEMP/ambientlab
  local cluster
  # The runner's folder for temporary files is its own: jobs at the same time on one host get different names.
  cluster=lab-$GITHUB_RUN_ID-$(printf '%s' "$GITHUB_RUN_ATTEMPT $GITHUB_JOB $RUNNER_NAME $RUNNER_TEMP" | sha256sum | cut -c1-8)
  mkdir -p "$work"
  output cluster "$cluster"
  output binary "$work/lab"
  output bundle "$work/bundle"
  output report "$work/report"
  output dump "$work/dump"
  output kubeconfig "$work/kubeconfig"
  output go "$(go env GOVERSION)"
  export_to_job SM_CLUSTER "$cluster"
  export_to_job SM_PROVIDER "$LAB_PROVIDER"
  export_to_job SM_ADDONS "$LAB_ADDONS"
  export_to_job SM_TIMEOUT "$LAB_TIMEOUT"
  export_to_job SM_REPORT "$work/report"
  export_to_job SM_DUMP "$work/dump"
  if [ "$LAB_PROVIDER" = kind ] && [ "$LAB_BUNDLE" = true ]; then
    mkdir -p "$work/bundle"
  fi
}

compile() { go tool mage -compile "$LAB_BINARY"; }

bundle() { "$LAB_BINARY" sm:bundle -to="$LAB_BUNDLE_FOLDER"; }

run() {
  if [ "$SM_PROVIDER" != existing ]; then
    export KUBECONFIG=$LAB_KUBECONFIG
  fi
  if [ -f "$LAB_BUNDLE_FOLDER/index.json" ]; then
    export SM_BUNDLE=$LAB_BUNDLE_FOLDER
  fi
  if [ -n "$LAB_COMMAND" ]; then
    exec "$LAB_BINARY" sm:run -lessons="$LAB_LESSONS" -keep="$LAB_KEEP" -- bash -euo pipefail -c "$LAB_COMMAND"
  fi
  # The lab stays for the steps that follow.
  "$LAB_BINARY" sm:run -lessons="$LAB_LESSONS" -keep=always -- true
  for name in KUBECONFIG SM_BUNDLE; do
    if [ -n "${!name:-}" ]; then
      export_to_job "$name" "${!name}"
    fi
  done
}

"$1"
