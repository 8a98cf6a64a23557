#!/usr/bin/env bash
# A mosquitto 2.1 of its own in .tools/mosquitto-2.1: the first that knows the PROXY protocol. Debian 12 has 2.0.
#
# The packages are Debian testing's, fetched and verified by apt with folders of its own; nothing of them is installed.
# The program runs with the C library that came with it, through its own loader. Called by install.sh.
set -euo pipefail

home=$(dirname "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)")/.tools/mosquitto-2.1
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

if [ ! -e "$keyring" ]; then
  echo "install-mosquitto-2.1.sh: $keyring is missing: install the package debian-archive-keyring" >&2
  exit 1
fi

# The mirror that this machine installs from.
# shellcheck disable=SC2016 # a variable of apt's
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' | grep -v security | head -n 1)
if [ -z "$mirror" ]; then
  echo "install-mosquitto-2.1.sh: apt knows no mirror: run apt-get update" >&2
  exit 1
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/etc/{preferences.d,sources.list.d} "$work"/lists/partial "$work"/cache/archives/partial "$work"/root
echo "deb [signed-by=$keyring] $mirror testing main" >"$work/etc/sources.list"
apt() {
  apt-get -q -o Dir::Etc="$work/etc" -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
    -o Dir::State::status="$work/status" -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=60 "$@"
}
apt update
# As on a machine with nothing on it, so that apt finds all that it needs, whatever the libraries are called today.
touch "$work/status"
apt install --download-only --yes --no-install-recommends mosquitto
for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/root"; done

folder=$(dirname "$(find "$work/root" -name libc.so.6 -print -quit)")
loader=$(find "$folder" -name 'ld-linux*.so.*' -print -quit)
# dpkg would have run ldconfig, which makes the links that one package leaves out.
/sbin/ldconfig -n "$folder"
rm -rf "$home"
mkdir -p "$home/lib"
cp -a "$folder"/. "$home/lib/"
cp "$work/root/usr/sbin/mosquitto" "$home/program"
cat >"$home/mosquitto" <<END
#!/bin/sh
exec "$home/lib/$(basename "$loader")" --library-path "$home/lib" "$home/program" "\$@"
END
chmod +x "$home/mosquitto"
"$home/mosquitto" -h 2>/dev/null | grep -c "^mosquitto version 2\.[1-9]" >/dev/null
