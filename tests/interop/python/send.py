"""Sends 49 fast requests and a slow one with the OpenTelemetry SDK: `send.py grpc|http`.

Prints the trace id of the slow one and how many spans it has. What the SDK can put into a span is in it: an exception, a
link, and attributes of every type.
"""

import os
import sys
import time

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

MS = 1_000_000
SPANS = 4


def exporter(transport):
    if transport == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        return OTLPSpanExporter(endpoint=os.environ["GRPC"], insecure=True)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter(endpoint=os.environ["HTTP"] + "/v1/traces", compression=Compression.Gzip)


def request(tracer, start, millis, links):
    """One request: the shop's own span, a query, a call with an exception, a message. Returns its context."""
    attributes = {"http.route": "/pay", "tags": ["a", "b"], "amount": 1.5, "retry": False, "n": -7, "note": "Stra\u00dfe \u2713"}
    server = tracer.start_span("POST /pay", kind=trace.SpanKind.SERVER, start_time=start, attributes=attributes, links=links)
    end = start + millis * MS
    with trace.use_span(server, end_on_exit=False):
        query = tracer.start_span("SELECT", kind=trace.SpanKind.CLIENT, start_time=start)
        query.add_event("row", {"n": millis}, timestamp=start)
        query.end(start + MS // 2)
        call = tracer.start_span("POST /charge", kind=trace.SpanKind.CLIENT, start_time=start)
        try:
            raise TimeoutError("the bank is slow")
        except TimeoutError as error:
            call.record_exception(error, timestamp=start)
            call.set_status(trace.StatusCode.ERROR, "timeout")
        call.end(end)
        tracer.start_span("send receipt", kind=trace.SpanKind.PRODUCER, start_time=end).end(end)
    server.end(end)
    return server.get_span_context()


transport = sys.argv[1]
resource = Resource.create({"service.name": f"till-python-{transport}", "cloud.availability_zone": "eu-1b"})
provider = TracerProvider(resource=resource)
provider.add_span_processor(BatchSpanProcessor(exporter(transport)))
tracer = provider.get_tracer("interop", "1.0")
start = time.time_ns() - 20_000 * MS
links = []
for millis in [*range(1, 50), 4_000]:
    context = request(tracer, start, millis, links)
    links = [trace.Link(context, {"why": "the request before"})]
provider.shutdown()
print(format(context.trace_id, "032x"), SPANS)
