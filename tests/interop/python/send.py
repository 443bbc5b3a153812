"""Sends 99 fast requests and a slow one per transport with the OpenTelemetry SDK, then follows the p99 to its trace."""

import json
import os
import subprocess
import time
import urllib.request

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

GRPC, HTTP, QUERY, SPANDREL = (os.environ[name] for name in ("GRPC", "HTTP", "QUERY", "SPANDREL"))
MS = 1_000_000


def send(service, exporter):
    """Returns the trace id of the slow request."""
    provider = TracerProvider(resource=Resource.create({"service.name": service, "cloud.availability_zone": "eu-1b"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("interop", "1.0")
    start = time.time_ns() - 20_000 * MS
    slow = None
    for millis in [*range(1, 100), 4_000]:
        server = tracer.start_span("POST /pay", kind=trace.SpanKind.SERVER, start_time=start,
                                   attributes={"http.route": "/pay", "tags": ["a", "b"], "amount": 1.5})
        with trace.use_span(server):
            child = tracer.start_span("SELECT", kind=trace.SpanKind.CLIENT, start_time=start + MS // 2)
            child.add_event("row", {"n": millis}, timestamp=start + MS // 2)
            child.end(start + MS)
        server.end(start + millis * MS)
        slow = format(server.get_span_context().trace_id, "032x")
    provider.shutdown()
    return slow


def get(path):
    with urllib.request.urlopen(QUERY + path) as response:
        return json.load(response)


def check(service, slow):
    top = get(f"/spandrel/v1/percentile?service={service}&q=1")
    assert top["count"] == 100, top
    exemplar = top["quantiles"][0]["exemplars"][0]
    assert exemplar["trace_id"] == slow and exemplar["duration_ns"] == 4_000 * MS, exemplar
    spans = [span for resource in get(f"/spandrel/v1/traces/{slow}")["resourceSpans"]
             for scope in resource["scopeSpans"] for span in scope["spans"]]
    assert sorted(span["name"] for span in spans) == ["POST /pay", "SELECT"], spans
    assert get(f"/api/v2/traces/{slow}")["trace"]["resourceSpans"]
    shown = subprocess.run([SPANDREL, "p99", service, "--q", "0.5,1", "--url", QUERY], capture_output=True, text=True, check=True)
    assert slow in shown.stdout, shown.stdout
    print(f"ok {service}: 200 spans sent, the slowest of 100 requests opens as {slow}")


for name, exporter in (("till-grpc", GrpcExporter(endpoint=GRPC, insecure=True)),
                       ("till-http", HttpExporter(endpoint=HTTP + "/v1/traces"))):
    check(name, send(name, exporter))
