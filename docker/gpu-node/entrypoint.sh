#!/usr/bin/env bash
# Starts the SSH server of gpu-node, with a host key that is made at the first start and kept in a volume.
set -euo pipefail

etc="${ETC_DIR:-/etc/ssh}"
ssh_public="${SSH_PUBLIC_DIR:-/ssh-public}"
host_key="$etc/keys/ssh_host_ed25519_key"

mkdir -p "$etc/keys" "$etc/authorized_keys" /run/sshd
if [ ! -s "$host_key" ]; then
  rm -f "$host_key"*
  ssh-keygen -q -t ed25519 -N "" -C gpu-node -f "$host_key"
fi

# Airflow trusts this host key and no other; in return this machine lets Airflow's key in. The copy belongs to
# root: sshd takes no keys from a file that somebody else could write.
echo "${NODE_NAME:-gpu-node} $(cut -d ' ' -f 1,2 "$host_key.pub")" > "$ssh_public/known_hosts.new"
mv "$ssh_public/known_hosts.new" "$ssh_public/known_hosts"
install -m 0644 "$ssh_public/authorized_keys" "$etc/authorized_keys/${NODE_USER:-ml}"

# A volume for the jobs comes up empty, and owned by root.
install -d -m 0700 -o "${NODE_USER:-ml}" -g "${NODE_USER:-ml}" "${JOBS_DIR:-/home/ml/ml-jobs}"

exec /usr/sbin/sshd -D -e -f "$etc/sshd_config"
