#!/usr/bin/env bash
# Makes DIR/steady, the Python program of restarts.py: `prepare.sh DIR`. Needs python3 with venv, and PyPI.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python3 -m venv "$1/venv"
"$1/venv/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir -r "$here/requirements.txt"
printf '#!/bin/sh\nexec %q %q "$@"\n' "$1/venv/bin/python" "$here/steady.py" >"$1/steady"
chmod +x "$1/steady"
echo "opentelemetry-sdk $("$1/venv/bin/python" -c 'import importlib.metadata as m; print(m.version("opentelemetry-sdk"))')"
