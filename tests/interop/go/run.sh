#!/usr/bin/env bash
# A Go program, told where to send by the environment alone, sends spans by gRPC; then the server is asked for its slow request.
# Usage: tests/interop/go/run.sh [path of the spandrel binary]. Needs go, python3, and the Go module proxy.
set -euo pipefail
[ -z "${1:-}" ] || set -- "$(realpath "$1")"
cd "$(dirname "$0")"
. ../serve.sh

read -r slow n_spans < <(OTEL_SERVICE_NAME=till-go OTEL_EXPORTER_OTLP_ENDPOINT="$GRPC" go run .) || { echo "FAIL nothing sent"; exit 1; }
python3 ../ask.py till-go "$n_spans" "$slow"
