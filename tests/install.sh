#!/usr/bin/env bash
# Installs the real brokers and clients that the tests drive: mosquitto 2.0 and 2.1, RabbitMQ, Chromium, Firefox, Node and Python
# packages; and what looks at the files of deploy/: systemd, umoci, lintian, strace, kustomize, cargo-deb, promtool;
# and pebble, a CA.
#
# For Debian and Ubuntu, as root or with sudo. Safe to run again: with everything in place it takes under a second.
# No service is left running, and none is started: the tests start their own brokers on free ports.
# With arguments, COMMAND:PACKAGE each, it installs the packages of those that are missing, and nothing else.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$here")
tools=$project/.tools
clients=$here/clients
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
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
missing() {
  local PATH=$PATH:/usr/sbin pair
  for pair in "$@"; do
    command -v "${pair%:*}" >/dev/null || echo "${pair#*:}"
  done
}

# The same for everything that the tests need.
missing_packages() {
  missing mosquitto:mosquitto rabbitmq-server:rabbitmq-server epmd:erlang-base unshare:util-linux ip:iproute2 chromium:chromium firefox-esr:firefox-esr certutil:libnss3-tools node:nodejs npm:npm \
    strace:strace gnutls-cli:gnutls-bin testssl:testssl.sh systemd-analyze:systemd umoci:umoci lintian:lintian promtool:prometheus pebble:pebble
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  [ -e "$keyring" ] || echo debian-archive-keyring
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

if [ "$#" -gt 0 ]; then
  mapfile -t packages < <(missing "$@")
  if [ "${#packages[@]}" -gt 0 ]; then install_packages "${packages[@]}"; fi
  exit
fi

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

requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
cat "$clients/requirements.txt" "$here/deploy/requirements.txt" >"$requirements"
if ! cmp -s "$requirements" "$tools/venv/.installed-from"; then
  mkdir -p "$tools"
  python3 -m venv --clear "$tools/venv"
  retry "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --timeout 60 -r "$requirements"
  cp "$requirements" "$tools/venv/.installed-from"
fi

# A venv of its own: it pins what others may want newer.
if [ ! -x "$tools/scanners/bin/sslyze" ]; then
  python3 -m venv --clear "$tools/scanners"
  retry "$tools/scanners/bin/pip" install --quiet --disable-pip-version-check --timeout 60 sslyze==6.3.1
fi

if [ ! -x "$tools/mosquitto-2.1/mosquitto" ]; then retry "$here/install-mosquitto-2.1.sh"; fi

# Debian 12 has none, and kubectl's of its time is too old: the package of Debian 13, taken out beside the system.
# It asks for no newer libc. apt checks the signature; nothing of the system's own lists changes.
install_kustomize() {
  local root=$tools/apt mirror
  # shellcheck disable=SC2016 # a variable of apt's
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -n 1)
  rm -rf "$root"
  mkdir -p "$root/lists/partial" "$root/cache/archives/partial" "$tools/bin"
  echo "deb [signed-by=$keyring] $mirror trixie main" >"$root/sources.list"
  local get=(apt-get -q -o Acquire::Retries=3 -o Acquire::http::Timeout=60 -o Acquire::Languages=none
    -o "Dir::Etc::sourcelist=$root/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$root/lists" -o "Dir::Cache=$root/cache" -o APT::Sandbox::User=root)
  retry "${get[@]}" update
  (cd "$root" && retry "${get[@]}" download kustomize)
  dpkg-deb --fsys-tarfile "$root"/kustomize_*.deb | tar -x -C "$tools/bin" --strip-components=3 ./usr/bin/kustomize
  rm -rf "$root"
}
if [ ! -x "$tools/bin/kustomize" ]; then install_kustomize; fi

make -s -C "$project" .tools/bin/cargo-deb
