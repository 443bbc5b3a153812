#!/usr/bin/env bash
# Makes DIR/steady, the JavaScript program of restarts.py: `prepare.sh DIR`. Needs node and npm.
set -euo pipefail
cd "$(dirname "$0")"
cp steady/package.json steady/steady.js "$1"
cd "$1"
npm install --silent --no-audit --no-fund --cache "$1/cache" >&2
printf '#!/bin/sh\nexec node %q "$@"\n' "$1/steady.js" >steady
chmod +x steady
echo "@opentelemetry/sdk-node $(node -p 'require("./node_modules/@opentelemetry/sdk-node/package.json").version')"
