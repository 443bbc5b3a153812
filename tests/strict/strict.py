"""Sends two traces with attributes of every type, and reads every answer of the Tempo API as Grafana's data source does.

JSON is parsed by protobuf's own parser into the messages of proto/tempo.proto: it fails on a key, a type or a name that it does
not know. The same questions go over gRPC; both answers must be the same message. Prints ok or FAIL.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import grpc
import opentelemetry.proto.trace.v1.trace_pb2  # known to the pool of descriptors from here on
import tempo_pb2 as tempo
import tempo_pb2_grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

HTTP, QUERY = os.environ["HTTP"], os.environ["QUERY"]
SECOND = 10**9
TRACE, OTHER = "0000000000000000000000000000abcd", "463ac35c9f6413ad48485a3953bb6124"
MESSAGE_BYTES_MAX = 4 << 20

SEARCHES = [
    "{}",
    "{ status = error }",
    '{ resource.service.name = "till" && kind = server }',
    "{ .whole != nil && .fraction != nil && .flag != nil && .text != nil && .list != nil }",
    "{ .mixed != nil }",
    "{ duration > 1ms && nestedSetParent < 0 }",
    "({ true } &>> { kind = client }) || ({ true }) | select(nestedSetParent, nestedSetLeft, nestedSetRight)",
    "{} | select(span.whole, span.fraction, span.flag, span.list, span.mixed, status, kind)",
    "{} | by(resource.service.name) | count() > 0",
    "{} | by(span.whole) | avg(duration) > 1ns",
    '{ event.exception.type = "Declined" }',
    '{ name = "no such name" }',
]
METRICS = [
    f"{{}} | {function}{by}"
    for function in [
        "rate()",
        "count_over_time()",
        "min_over_time(duration)",
        "max_over_time(duration)",
        "avg_over_time(duration)",
        "sum_over_time(duration)",
        "quantile_over_time(duration, 0.5, 0.99)",
        "histogram_over_time(duration)",
    ]
    for by in ["", *(f" by({key})" for key in ["resource.service.name", "span.whole", "span.fraction", "span.flag", "span.list"])]
]
TAGS = ["resource.service.name", "span.whole", "span.fraction", "span.flag", ".mixed", "name", "status", "kind", "no.such"]


def attribute(key, **value):
    return {"key": key, "value": value}


def span(trace, no, start, **more):
    span = {
        "traceId": trace, "spanId": f"{no:016x}", "name": f"work {no}", "kind": 2 if no == 1 else 3,
        "startTimeUnixNano": str(start), "endTimeUnixNano": str(start + no * 3_000_000),
        "attributes": [
            attribute("whole", intValue="7"),
            attribute("fraction", doubleValue=0.5),
            attribute("flag", boolValue=True),
            attribute("text", stringValue="Stra\u00dfe \u2713"),
            attribute("list", arrayValue={"values": [{"intValue": "1"}, {"intValue": "2"}]}),
            attribute("mixed", **({"intValue": "1"} if no == 1 else {"stringValue": "one"})),
        ],
    }
    return {**span, **({} if no == 1 else {"parentSpanId": f"{1:016x}"}), **more}


def seed(start):
    declined = attribute("exception.type", stringValue="Declined")
    failed = {
        "status": {"code": 2, "message": "no money"}, "links": [{"traceId": OTHER, "spanId": f"{1:016x}"}],
        "events": [{"timeUnixNano": str(start), "name": "exception", "attributes": [declined]}],
    }
    till = {"attributes": [attribute("service.name", stringValue="till")]}
    resources = [
        (till, [span(TRACE, 1, start), span(TRACE, 2, start + 10**6, **failed)]),
        ({}, [span(OTHER, 1, start + SECOND)]),
    ]
    scoped = [{"resource": of, "scopeSpans": [{"scope": {"name": "s"}, "spans": spans}]} for of, spans in resources]
    body, headers = json.dumps({"resourceSpans": scoped}), {"Content-Type": "application/json"}
    request = urllib.request.Request(HTTP + "/v1/traces", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        need(response.read() == b"{}", "the spans are stored")


def need(holds, what, *seen):
    if not holds:
        raise AssertionError(f"{what}: {seen}" if seen else what)


def get(path, **parameters):
    url = f"{QUERY}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.code} {error.read().decode()}") from error


def parsed(kind, path, **parameters):
    text = get(path, **parameters)
    try:
        return json_format.Parse(text, kind(), ignore_unknown_fields=False)
    except json_format.ParseError as error:
        raise AssertionError(f"{path} {parameters}: {error} in {text}") from error


def streamed(call, request):
    """All messages of a call in one: repeated fields behind each other, of others the last."""
    whole, messages = None, 0
    for message in call(request, timeout=10):
        need(message.ByteSize() < MESSAGE_BYTES_MAX, "clients take the message", message.ByteSize())
        need(message.HasField("metrics") or not isinstance(message, tempo.SearchResponse), "a message has metrics", message)
        if whole is None:
            whole = message
        else:
            whole.MergeFrom(message)
        messages += 1
    need(messages, "at least one message", request)
    return whole


def trace_by_id():
    """The message of /api/v2/traces/{id}: OTLP's spans inside, which proto/tempo.proto holds encoded."""
    spans = "opentelemetry/proto/trace/v1/trace.proto"
    file = descriptor_pb2.FileDescriptorProto(name="strict.proto", package="strict", syntax="proto3")
    file.dependency.extend([spans, "tempo.proto"])
    field = descriptor_pb2.FieldDescriptorProto
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    resource_spans = ".opentelemetry.proto.trace.v1.ResourceSpans"
    trace = file.message_type.add(name="Trace").field
    trace.add(name="resource_spans", number=1, type=field.TYPE_MESSAGE, label=many, type_name=resource_spans)
    response = file.message_type.add(name="Response").field
    response.add(name="trace", number=1, type=field.TYPE_MESSAGE, label=one, type_name=".strict.Trace")
    response.add(name="metrics", number=2, type=field.TYPE_MESSAGE, label=one, type_name=".tempopb.TraceByIdMetrics")
    response.add(name="status", number=3, type=field.TYPE_ENUM, label=one, type_name=".tempopb.PartialStatus")
    response.add(name="message", number=4, type=field.TYPE_STRING, label=one)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("strict.Response"))


def check_traces():
    response = trace_by_id()
    for id, n_spans in [(TRACE, 2), (OTHER, 1)]:
        resources = parsed(response, f"/api/v2/traces/{id}").trace.resource_spans
        scopes = [scope for resource in resources for scope in resource.scope_spans]
        spans = [span for scope in scopes for span in scope.spans]
        need(len(spans) == n_spans and all(span.trace_id.hex() == id for span in spans), "the spans came back", spans)
        need(all(resource.HasField("resource") for resource in resources), "no resource is left out")
        need(all(scope.HasField("scope") for scope in scopes), "no scope is left out")
        need(all(span.HasField("status") for span in spans), "no status is left out")


def check_searches(stub, start, end):
    for q in SEARCHES:
        found = parsed(tempo.SearchResponse, "/api/search", q=q, start=start, end=end, limit=10, spss=5)
        need(bool(found.traces) == ("no such" not in q), "traces are found", q)
        request = tempo.SearchRequest(query=q, start=start, end=end, limit=10, spans_per_span_set=5)
        need(streamed(stub.Search, request) == found, "gRPC finds the same", q)
    found = parsed(tempo.SearchResponse, "/api/search", tags="text=\"Stra\u00dfe \u2713\"", minDuration="1ms")
    request = tempo.SearchRequest(tags={"text": "Stra\u00dfe \u2713"}, min_duration_ms=1)
    need(found.traces and streamed(stub.Search, request) == found, "gRPC finds the same by tags")


def check_metrics(stub, start, end):
    times = {"start": start * SECOND, "end": end * SECOND}
    for q in METRICS:
        instant = parsed(tempo.QueryInstantResponse, "/api/metrics/query", q=q, **times)
        need(instant.series and instant.status == tempo.COMPLETE, "there are numbers", q)
        need(streamed(stub.MetricsQueryInstant, tempo.QueryInstantRequest(query=q, **times)) == instant, "gRPC says the same", q)
        over_time = parsed(tempo.QueryRangeResponse, "/api/metrics/query_range", q=q, step="30s", **times)
        need(any(series.exemplars for series in over_time.series), "exemplars come unasked", q)
        request = tempo.QueryRangeRequest(query=q, step=30 * SECOND, **times)
        need(streamed(stub.MetricsQueryRange, request) == over_time, "gRPC says the same", q)


def check_tags(stub, start, end):
    window = {"start": start, "end": end}
    for path, kind, call in [
        ("/api/v2/search/tags", tempo.SearchTagsV2Response, stub.SearchTagsV2),
        ("/api/search/tags", tempo.SearchTagsResponse, stub.SearchTags),
    ]:
        names = parsed(kind, path, **window)
        need(streamed(call, tempo.SearchTagsRequest(**window)) == names, "gRPC lists the same names", path)
    for tag in TAGS:
        quoted = urllib.parse.quote(tag, safe="")
        for path, kind, call in [
            (f"/api/v2/search/tag/{quoted}/values", tempo.SearchTagValuesV2Response, stub.SearchTagValuesV2),
            (f"/api/search/tag/{quoted}/values", tempo.SearchTagValuesResponse, stub.SearchTagValues),
        ]:
            values = parsed(kind, path, **window)
            request = tempo.SearchTagValuesRequest(tag_name=tag, **window)
            need(streamed(call, request) == values, "gRPC lists the same values", path)


def check_the_check():
    """A key that is not in the message is refused."""
    text = get("/api/search", q="{}")
    try:
        json_format.Parse(text.replace('"metrics"', '"backendReads":1,"metrics"', 1), tempo.SearchResponse())
    except json_format.ParseError:
        return
    raise AssertionError("the parser takes keys that it does not know")


now = time.time_ns() // SECOND
start, end = now - 120, now
try:
    seed((now - 60) * SECOND)
    with grpc.insecure_channel(QUERY.removeprefix("http://")) as channel:
        stub = tempo_pb2_grpc.StreamingQuerierStub(channel)
        check_the_check()
        check_traces()
        check_searches(stub, start, end)
        check_metrics(stub, start, end)
        check_tags(stub, start, end)
    print(f"ok {len(SEARCHES) + 1} searches, {len(METRICS)} metrics, {len(TAGS)} tags: strict JSON, and the same over gRPC")
except Exception as error:
    print(f"FAIL {type(error).__name__}: {error}")
    sys.exit(1)
