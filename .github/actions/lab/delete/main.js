// Keeps the inputs for post.js, which runs when the job ends.
"use strict";
const fs = require("node:fs");

for (const name of ["binary", "cluster", "provider", "kubeconfig"]) {
  const value = process.env[`INPUT_${name.toUpperCase()}`];
  fs.appendFileSync(process.env.GITHUB_STATE, `${name}=${value}\n`);
}
