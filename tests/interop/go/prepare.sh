#!/usr/bin/env bash
# Makes DIR/steady, the Go program of restarts.py: `prepare.sh DIR`. Needs go and the Go module proxy.
set -euo pipefail
cd "$(dirname "$0")"
export GOPATH="$1/path" GOCACHE="$1/cache" GOFLAGS=-modcacherw
go build -o "$1/steady" ./steady
echo "go.opentelemetry.io/otel $(go list -m -f '{{.Version}}' go.opentelemetry.io/otel/sdk)"
