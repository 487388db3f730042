#!/bin/sh
# Lowering an oom_score_adj needs CAP_SYS_RESOURCE, which some hosts give to no container, not even a privileged one. There
# every pod would fail with "can't set oom_score_adj: permission denied", unless containerd keeps to scores it may set.
# Bit 24 of the bounding set is CAP_SYS_RESOURCE (capability.h).
set -eu
bounding=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
if [ $((0x$bounding >> 24 & 1)) -eq 0 ]; then
  sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' /etc/containerd/config.toml
fi
