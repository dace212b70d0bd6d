#!/usr/bin/env bash
# Generates Python from the protos into the given folder (default: protos/gen). Needs the project's environment.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-protos/gen}
bin=${BIN:-.venv/bin}
rm -rf "$out/binnacle" && mkdir -p "$out"
mapfile -t files < <(find protos/binnacle -name '*.proto' | LC_ALL=C sort)
"$bin/python" -m grpc_tools.protoc -Iprotos \
  --plugin=protoc-gen-mypy="$bin/protoc-gen-mypy" --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" \
  --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet,only_async:"$out" "${files[@]}"
# For consumers without this package: all event messages with what they import, and the comments of their fields.
"$bin/python" -m grpc_tools.protoc -Iprotos --include_imports --include_source_info \
  --descriptor_set_out="$out/binnacle/events.binpb" $(printf '%s\n' "${files[@]}" | grep '/events/v1/')
# Only files that declare a service keep their (otherwise empty) stub module.
for proto in "${files[@]}"; do
  stem=$out/${proto#protos/}; stem=${stem%.proto}
  grep -q '^service ' "$proto" || rm -f "${stem}_pb2_grpc.py" "${stem}_pb2_grpc.pyi"
done
find "$out/binnacle" -type d -exec touch {}/__init__.py \;
