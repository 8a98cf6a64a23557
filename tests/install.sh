#!/usr/bin/env bash
# Installs the real brokers and clients that the tests drive: mosquitto, RabbitMQ, Chromium, promtool, Node and Python packages.
#
# For Debian and Ubuntu, as root or with sudo. Safe to run again: with everything in place it takes under a second.
# No service is left running, and none is started: the tests start their own brokers on free ports.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$(dirname "$here")/.tools
clients=$here/clients
policy=/usr/sbin/policy-rc.d

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Package mirrors time out now and then.
retry() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return 0
    echo "tests/install.sh: attempt $attempt of 3 failed: $*" >&2
    [ "$attempt" = 3 ] || sleep $((attempt * 5))
  done
  return 1
}

# True when `node` can run every client (playwright-core wants 18).
node_is_new_enough() { node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)'; }

# The packages of those commands that are not there.
missing_packages() {
  local PATH=$PATH:/usr/sbin pair
  for pair in mosquitto:mosquitto rabbitmq-server:rabbitmq-server epmd:erlang-base unshare:util-linux ip:iproute2 chromium:chromium promtool:prometheus node:nodejs npm:npm; do
    command -v "${pair%:*}" >/dev/null || echo "${pair#*:}"
  done
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

# Debian starts a service as it installs it, unless this policy says 101. What was there before comes back.
forbid_starting_services() {
  if [ -e "$policy" ]; then as_root mv "$policy" "$policy.before-tidegate"; fi
  trap allow_starting_services EXIT
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
  as_root chmod 755 "$policy"
}

allow_starting_services() {
  as_root rm -f "$policy"
  if [ -e "$policy.before-tidegate" ]; then as_root mv "$policy.before-tidegate" "$policy"; fi
  trap - EXIT
}

install_packages() {
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 -o Acquire::http::Timeout=60)
  forbid_starting_services
  retry as_root "${apt[@]}" update
  retry as_root "${apt[@]}" install -y --no-install-recommends "$@"
  allow_starting_services
}

mapfile -t packages < <(missing_packages)
if [ "${#packages[@]}" -gt 0 ]; then install_packages "${packages[@]}"; fi
if ! node_is_new_enough; then
  echo "tests/install.sh: Node $(node --version) is too old: the clients need 18 or newer" >&2
  exit 1
fi

# A copy of the list is kept beside what was installed from it.
if ! cmp -s "$clients/package-lock.json" "$clients/node_modules/.installed-from"; then
  (cd "$clients" && retry npm ci --no-audit --no-fund --loglevel=error)
  cp "$clients/package-lock.json" "$clients/node_modules/.installed-from"
fi

if ! cmp -s "$clients/requirements.txt" "$tools/venv/.installed-from"; then
  mkdir -p "$tools"
  python3 -m venv --clear "$tools/venv"
  retry "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --timeout 60 -r "$clients/requirements.txt"
  cp "$clients/requirements.txt" "$tools/venv/.installed-from"
fi
