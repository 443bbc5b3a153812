#!/usr/bin/env bash
# Makes DIR/steady, the Rust program of restarts.py: `prepare.sh DIR`. Needs cargo and crates.io.
set -euo pipefail
cd "$(dirname "$0")"
CARGO_TARGET_DIR="$1/target" cargo build --quiet --locked >&2
cp "$1/target/debug/steady" "$1/steady"
echo "opentelemetry-otlp $(cargo pkgid --quiet opentelemetry-otlp | sed 's/.*[@#]//')"
