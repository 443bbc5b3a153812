"""Makes numbered spans at a steady rate with the SDK's defaults, and prints how many: `steady.py grpc|http`."""

import os
import sys
import time

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

seconds, rate = int(os.environ["STEADY_SECONDS"]), int(os.environ["STEADY_RATE"])
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("restarts")
begin = time.monotonic()
for n in range(seconds * rate):
    time.sleep(max(0, begin + n / rate - time.monotonic()))
    tracer.start_span("steady", kind=trace.SpanKind.SERVER, attributes={"n": n}).end()
provider.shutdown()
print(seconds * rate)
