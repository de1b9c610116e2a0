#!/usr/bin/env bash
# Runs before Airflow's services: makes the secrets they share, once, and brings the database up to date.
set -euo pipefail

secrets="${SECRETS_DIR:-/opt/airflow/secrets}"
ssh_public="${SSH_PUBLIC_DIR:-/opt/airflow/ssh-public}"
monitoring="${MONITORING_DIR:-/opt/airflow/monitoring}"
umask 077

# Writes what the command prints to a file, unless the file is there; never half of it.
once() {
  local file="$secrets/$1"
  shift
  [ -s "$file" ] && return
  "$@" > "$file.new"
  mv "$file.new" "$file"
}

random() { python -c 'import secrets; print(secrets.token_urlsafe(64))'; }
fernet_key() { python -c 'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'; }
password_file() { python -c 'import json, secrets; print(json.dumps({"admin": secrets.token_urlsafe(12)}))'; }

once jwt_secret random
once api_secret_key random
once fernet_key fernet_key
once passwords.json password_file
once metrics_token random
once grafana_password random

# Prometheus and Grafana get no other secret than these two, which they read as other users.
for name in metrics_token grafana_password; do
  install -m 0644 "$secrets/$name" "$monitoring/$name"
done

# The key with which Airflow logs in to gpu-node; only its public half leaves this volume.
if [ ! -s "$secrets/gpu_node_key" ]; then
  rm -f "$secrets/gpu_node_key.new"*
  ssh-keygen -q -t ed25519 -N "" -C airflow -f "$secrets/gpu_node_key.new"
  mv "$secrets/gpu_node_key.new.pub" "$secrets/gpu_node_key.pub"
  mv "$secrets/gpu_node_key.new" "$secrets/gpu_node_key"
fi
install -m 0644 "$secrets/gpu_node_key.pub" "$ssh_public/authorized_keys"

airflow db migrate

echo
echo "Airflow: ${AIRFLOW__API__BASE_URL:-http://localhost:8080}, user and password: $(cat "$secrets/passwords.json")"
echo "Grafana, with the profile monitoring: user admin, password: $(cat "$secrets/grafana_password")"
