#!/usr/bin/env bash
# Renews the hash-locked requirement files from pyproject.toml; with --check, says which of them is stale and fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-.tools/uv/bin/uv}
check=${1:-}
services="gateway retriever generator guardrail evaluator drift_monitor analytics"

compile() { # NAME ARGS…: a copy of the present lock steers the resolution, so that only what must change does
  local name=$1; shift
  local target=infra/locks/$name.lock work
  work=$(mktemp -d)
  [ -e "$target" ] && cp "$target" "$work/lock"
  "$uv" pip compile pyproject.toml --universal --generate-hashes --no-header --no-annotate --quiet \
    ${UPGRADE:+--upgrade} "$@" -o "$work/lock" >/dev/null
  if [ "$check" = --check ]; then
    if ! cmp -s "$work/lock" "$target"; then
      echo "$target is stale: run 'make lock' and commit it" >&2
      diff "$target" "$work/lock" | grep -E '^[<>] [a-z]' | head -20 >&2 || true
      return 1
    fi
  else
    cp "$work/lock" "$target"
  fi
}

status=0
compile dev --all-extras --group dev --group embedding-model || status=1
for service in $services; do
  group=""; case "$service" in retriever | guardrail) group="--group embedding-model" ;; esac
  # shellcheck disable=SC2086
  compile "${service//_/-}" --extra "$service" $group || status=1
done
exit $status
