# Sourced by the scripts beside it: starts a server of its own on free ports, with a directory that goes when they end.
# Sets work, SPANDREL, GRPC, HTTP and QUERY.
SPANDREL=$(realpath "${1:-../../../target/release/spandrel}")
[ -x "$SPANDREL" ] || { echo "FAIL no binary at $SPANDREL; run cargo build --release"; exit 1; }
work=$(mktemp -d)
server=
: >"$work/log"
finish() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  # Go makes its downloads read-only.
  chmod -R u+w "$work"
  rm -rf "$work"
}
trap finish EXIT

"$SPANDREL" serve --log-format json --data-dir "$work/data" \
  --otlp-grpc 127.0.0.1:0 --otlp-http 127.0.0.1:0 --http 127.0.0.1:0 2>"$work/log" &
server=$!
for _ in $(seq 100); do
  grep -q '"message":"ready"' "$work/log" && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log"; echo "FAIL the server did not start"; exit 1; }
  sleep 0.1
done
grep -q '"message":"ready"' "$work/log" || { cat "$work/log"; echo "FAIL the server was not ready in 10 s"; exit 1; }
address() { grep -o "\"name\":\"$1\",\"address\":\"[^\"]*\"" "$work/log" | cut -d'"' -f8; }
GRPC="http://$(address otlp-grpc)" HTTP="http://$(address otlp-http)" QUERY="http://$(address http)"
export SPANDREL GRPC HTTP QUERY
