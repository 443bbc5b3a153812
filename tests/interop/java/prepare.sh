#!/usr/bin/env bash
# Makes DIR/steady, the Java program of restarts.py: `prepare.sh DIR`. Needs a JDK, mvn and Maven Central.
set -euo pipefail
cd "$(dirname "$0")/steady"
mvn -q -B -f pom.xml -Dmaven.repo.local="$1/m2" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
  -DoutputDirectory="$1/lib" >&2
javac -d "$1/classes" -cp "$1/lib/*" Steady.java
printf '#!/bin/sh\nexec java -cp %q Steady "$@"\n' "$1/classes:$1/lib/*" >"$1/steady"
chmod +x "$1/steady"
echo "io.opentelemetry $(ls "$1/lib" | sed -n 's/^opentelemetry-sdk-\([0-9.]*\)\.jar$/\1/p')"
