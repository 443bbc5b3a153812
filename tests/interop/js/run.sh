#!/usr/bin/env bash
# A Node program under automatic instrumentation sends spans by HTTP; then the server is asked for its slow request.
# Usage: tests/interop/js/run.sh [path of the spandrel binary]. Needs node, npm and python3.
set -euo pipefail
[ -z "${1:-}" ] || set -- "$(realpath "$1")"
cd "$(dirname "$0")"
. ../serve.sh

cp package.json app.js "$work"
cd "$work"
npm install --silent --no-audit --no-fund >npm.log 2>&1 || { cat npm.log; echo "FAIL npm install"; exit 1; }
OTEL_SERVICE_NAME=till-js OTEL_TRACES_EXPORTER=otlp OTEL_EXPORTER_OTLP_ENDPOINT="$HTTP" \
  OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none OTEL_NODE_RESOURCE_DETECTORS=env,host,process \
  node --require @opentelemetry/auto-instrumentations-node/register app.js
cd - >/dev/null
python3 ../ask.py till-js 2
