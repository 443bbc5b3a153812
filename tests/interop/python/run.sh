#!/usr/bin/env bash
# A real Python program sends spans by both transports; then the server is asked for its slow request.
# Usage: tests/interop/python/run.sh [path of the spandrel binary]; needs python3 with venv.
set -euo pipefail
cd "$(dirname "$0")"
spandrel=$(realpath "${1:-../../../target/release/spandrel}")
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt

"$spandrel" serve --log-format json --data-dir "$work/data" \
  --otlp-grpc 127.0.0.1:0 --otlp-http 127.0.0.1:0 --http 127.0.0.1:0 2>"$work/log" &
server=$!
for _ in $(seq 100); do
  grep -q '"message":"ready"' "$work/log" && break
  kill -0 "$server" || { cat "$work/log"; exit 1; }
  read -r -t 0.1 <> <(:) || true
done
address() { grep -o "\"name\":\"$1\",\"address\":\"[^\"]*\"" "$work/log" | cut -d'"' -f8; }

GRPC="http://$(address otlp-grpc)" HTTP="http://$(address otlp-http)" QUERY="http://$(address http)" \
  SPANDREL="$spandrel" "$work/venv/bin/python" send.py
