// Deletes the lab. A lab that does not exist any more is no failure; one that cannot be deleted is.
"use strict";
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");

const { STATE_binary: binary, STATE_cluster: cluster, STATE_provider: provider, STATE_kubeconfig: kubeconfig } = process.env;
if (!fs.existsSync(binary)) {
  console.log("The lab was not compiled, so there is none to delete.");
} else {
  const env = { ...process.env, SM_CLUSTER: cluster, SM_PROVIDER: provider, SM_BUNDLE: "" };
  if (provider !== "existing") {
    env.KUBECONFIG = kubeconfig;
  }
  const result = spawnSync(binary, ["sm:delete"], { env, stdio: "inherit" });
  process.exitCode = result.status ?? 1;
}
