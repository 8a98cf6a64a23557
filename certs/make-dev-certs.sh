#!/bin/sh
# Development certificates into this folder: make-dev-certs.sh [NAME…]; localhost, 127.0.0.1 and ::1 without names.
# Uses tidegate from PATH, or builds it from this repository.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
count=$#
while [ "$count" -gt 0 ]; do # each NAME becomes --name NAME
    name=$1
    shift
    set -- "$@" --name "$name"
    count=$((count - 1))
done

if command -v tidegate >/dev/null 2>&1; then
    exec tidegate cert dev --out "$here" "$@"
fi
exec cargo run --quiet --manifest-path "$here/../Cargo.toml" -- cert dev --out "$here" "$@"
