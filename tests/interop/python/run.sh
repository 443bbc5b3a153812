#!/usr/bin/env bash
# A Python program sends spans by gRPC and by HTTP; then the server is asked for its slow request.
# Usage: tests/interop/python/run.sh [path of the spandrel binary]. Needs python3 with venv, and PyPI.
set -euo pipefail
[ -z "${1:-}" ] || set -- "$(realpath "$1")"
cd "$(dirname "$0")"
. ../serve.sh

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
failed=0
for transport in grpc http; do
  read -r slow n_spans < <("$work/venv/bin/python" send.py "$transport") || { echo "FAIL nothing sent by $transport"; exit 1; }
  python3 ../ask.py "till-python-$transport" "$n_spans" "$slow" \
    $'Stra\u00dfe \u2713' "the bank is slow" "the request before" || failed=1
done
exit "$failed"
