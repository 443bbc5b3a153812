#!/usr/bin/env bash
# A Java program under the agent sends spans by HTTP; then the server is asked for its slow request.
# Usage: tests/interop/java/run.sh [path of the spandrel binary]. Needs a JDK, mvn, python3, and Maven Central.
set -euo pipefail
[ -z "${1:-}" ] || set -- "$(realpath "$1")"
cd "$(dirname "$0")"
. ../serve.sh

agent=io.opentelemetry.javaagent:opentelemetry-javaagent:2.33.1
mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -Dartifact="$agent" -DoutputDirectory="$work" \
  -Dmdep.stripVersion=true >"$work/mvn.log" 2>&1 || { cat "$work/mvn.log"; echo "FAIL $agent"; exit 1; }
javac -d "$work" App.java
OTEL_SERVICE_NAME=till-java OTEL_EXPORTER_OTLP_ENDPOINT="$HTTP" OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none \
  java -javaagent:"$work/opentelemetry-javaagent.jar" -cp "$work" App 2>"$work/java.log" || { cat "$work/java.log"; exit 1; }
python3 ../ask.py till-java 2
