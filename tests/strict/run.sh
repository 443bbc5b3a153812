#!/usr/bin/env bash
# Answers of the Tempo API, read by protobuf's own JSON parser, which takes no unknown key, and by a gRPC client of Python.
# Usage: tests/strict/run.sh [path of the spandrel binary]. Needs python3 with venv, and PyPI; exits with 3 without them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
set -- "$(realpath "${1:-$here/../../target/release/spandrel}")"
cd "$here"
. ../interop/serve.sh

python3 -m venv "$work/venv" || exit 3
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir -r requirements.txt || exit 3
mkdir "$work/generated"
"$work/venv/bin/python" -m grpc_tools.protoc --proto_path=../../proto \
  --python_out="$work/generated" --grpc_python_out="$work/generated" tempo.proto
PYTHONPATH="$work/generated" "$work/venv/bin/python" strict.py
