#!/usr/bin/env bash
# Makes DIR/steady, the Collector of restarts.py with the Python program before it: `prepare.sh DIR`, after python/prepare.sh
# has made DIR/../python. Needs go and the Go module proxy.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=v0.165.0
export GOPATH="$1/path" GOCACHE="$1/cache" GOFLAGS=-modcacherw
sed "s|\${OUTPUT}|$1/source|" "$here/builder.yaml" >"$1/builder.yaml"
go run "go.opentelemetry.io/collector/cmd/builder@$version" --config "$1/builder.yaml" >"$1/build.log" 2>&1 ||
  { tail -20 "$1/build.log" >&2; exit 1; }
printf '#!/bin/sh\nexec python3 %q %q %q "$@"\n' "$here/steady.py" "$1/source/otelcol" "$1/../python/steady" >"$1/steady"
chmod +x "$1/steady"
echo "Collector $version"
