"""Follows the p99 of a service, of which one request in 50 was slow, to its trace: `ask.py SERVICE SPANS [TRACE_ID [TEXT..]]`.

SPANS is how many spans the slow trace has; TRACE_ID is which one it is, where the sender knows; every TEXT must be in it.
Prints ok or FAIL.
"""

import json
import os
import subprocess
import sys
import urllib.request

QUERY, SPANDREL = os.environ["QUERY"], os.environ["SPANDREL"]
SLOW_NS = 600_000_000


def get(path):
    with urllib.request.urlopen(QUERY + path, timeout=10) as response:
        return json.load(response)


def spans_of(resource_spans):
    return [span for resource in resource_spans for scope in resource["scopeSpans"] for span in scope["spans"]]


def need(holds, what, *seen):
    if not holds:
        raise AssertionError(f"{what}: {seen}" if seen else what)


def check(service, n_spans, slow, texts):
    answer = get(f"/spandrel/v1/percentile?service={service}&q=0.5,0.99")
    need(answer["count"] == 50, "50 requests are counted", answer["count"])
    need(answer["coverage"]["complete"], "nothing is missing", answer["coverage"])
    median, p99 = answer["quantiles"]
    need(median["value_ns"] < SLOW_NS < p99["value_ns"], "the p99 is the slow request, the median is not", median, p99)
    exemplar = p99["exemplars"][0]
    need(exemplar["in_bucket"], "the exemplar lies in the bucket of the p99", exemplar)
    need(slow in (None, exemplar["trace_id"]), "the exemplar is the trace that was planted", slow, exemplar)
    trace_id = exemplar["trace_id"]

    native = spans_of(get(f"/spandrel/v1/traces/{trace_id}")["resourceSpans"])
    tempo = spans_of(get(f"/api/v2/traces/{trace_id}")["trace"]["resourceSpans"])
    need(len(native) == len(tempo) == n_spans, f"both doors show {n_spans} spans", len(native), len(tempo))
    need(exemplar["span_id"] in [span["spanId"] for span in native], "the exemplar's span is in its trace", native)

    for text in texts:
        need(text in json.dumps(native, ensure_ascii=False), f"{text!r} came back", native)
        need(text in json.dumps(tempo, ensure_ascii=False), f"{text!r} came back from the Tempo API", tempo)

    command = [SPANDREL, "p99", service, "--url", QUERY]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    need(f"trace {trace_id}" in shown, "spandrel p99 draws that trace", shown)
    millis = exemplar["duration_ns"] / 1e6
    print(f"ok {service}: the p99 of 50 requests leads to {trace_id}, {millis:.0f} ms, {n_spans} spans")


service, n_spans, slow, texts = sys.argv[1], int(sys.argv[2]), (sys.argv[3:] or [None])[0], sys.argv[4:]
try:
    check(service, n_spans, slow, texts)
except Exception as error:
    print(f"FAIL {service}: {error}")
    sys.exit(1)
