// Draws answers of /spandrel/v1. Whatever comes from spans reaches the page as text nodes, never as markup.

const main = document.getElementById("main");
const last = document.getElementById("last");
const SVG = "http://www.w3.org/2000/svg";

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function duration(ns) {
  if (ns === null || ns === undefined) return "\u2013";
  for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["\u00b5s", 1e3]]) {
    if (ns >= size) return `${(ns / size).toPrecision(3)} ${unit}`;
  }
  return `${ns} ns`;
}

function time(unixNanos) {
  return new Date(Number(BigInt(unixNanos) / 1000000n)).toISOString().replace("T", " ").slice(0, 19) + "Z";
}

/** The token lives as long as the tab; a server without tokens never asks. */
async function ask(path) {
  const token = sessionStorage.getItem("token");
  const response = await fetch(path, token ? { headers: { authorization: `Bearer ${token}` } } : {});
  if (response.status === 401) {
    // Several questions are under way at once: the first one that is refused asks for all.
    if (sessionStorage.getItem("token") === token) {
      const given = prompt("This server wants a token with the scope query (spandrel token):");
      if (!given) throw new Error("no token was given; reload the page to be asked again");
      sessionStorage.setItem("token", given.trim());
    }
    return ask(path);
  }
  const body = await response.json();
  if (!response.ok) throw new Error(body.error || response.statusText);
  return [body, response.headers.get("spandrel-coverage")];
}

function percentiles(service, q) {
  const query = new URLSearchParams({ service: service.name, namespace: service.namespace, q, start: `-${last.value}` });
  return ask(`/spandrel/v1/percentile?${query}`).then(([answer]) => answer);
}

function serviceLink(service) {
  const hash = `#/service/${encodeURIComponent(service.namespace)}/${encodeURIComponent(service.name)}`;
  return element("a", { href: hash }, service.name || "(no name)");
}

function traceLink(exemplar) {
  const hash = `#/trace/${exemplar.trace_id}/${exemplar.span_id}`;
  const zone = exemplar.attributes["cloud.availability_zone"];
  return element("span", { className: "exemplar" },
    element("a", { href: hash, className: "mono" }, exemplar.trace_id.slice(0, 16) + "\u2026"),
    ` ${duration(exemplar.duration_ns)} ${exemplar.span_name}`,
    element("span", { className: "soft" }, ` ${zone ? zone + " " : ""}${exemplar.error ? "error " : ""}${time(exemplar.time_unix_nano)}`));
}

function header(...names) {
  return element("tr", {}, ...names.map((name) =>
    element("th", { className: name.startsWith(">") ? "number" : "" }, name.replace(/^>/, ""))));
}

function number(text) {
  return element("td", { className: "number" }, String(text));
}

async function showServices() {
  const [{ services }] = await ask("/spandrel/v1/services");
  if (services.length === 0) {
    return [element("p", {}, "No spans yet. Send OTLP to port 4317 (gRPC) or 4318 (HTTP), or run "),
      element("code", {}, "spandrel demo")];
  }
  const answers = await Promise.all(services.map((service) => percentiles(service, "0.5,0.99,1").catch(() => null)));
  const rows = services.map((service, at) => {
    const found = answers[at] ? answers[at].quantiles : [];
    const value = (q) => found.find((row) => row.q === q);
    const p99 = value(0.99);
    return { p99: p99 ? p99.value_ns : -1, row: element("tr", {},
      element("td", {}, serviceLink(service), element("span", { className: "soft" }, ` ${service.namespace}`)),
      number(answers[at] ? answers[at].count : 0),
      number(duration(value(0.5)?.value_ns)), number(duration(p99?.value_ns)), number(duration(value(1)?.value_ns)),
      element("td", {}, p99 && p99.exemplars[0] ? traceLink(p99.exemplars[0]) : ""),
      number(service.span_count)) };
  });
  rows.sort((a, b) => b.p99 - a.p99);
  return [element("h1", {}, "Services, slowest p99 first"), element("table", {},
    header("service", ">served", ">p50", ">p99", ">max", "a trace in the p99's bucket", ">spans stored"),
    ...rows.map(({ row }) => row))];
}

async function showService(namespace, name) {
  const answer = await percentiles({ namespace, name }, "0.5,0.75,0.9,0.95,0.99,0.999,1");
  const longest = Math.max(1, ...answer.quantiles.map((row) => row.value_ns));
  const rows = answer.quantiles.map((row) => element("tr", {},
    element("td", {}, row.q === 1 ? "max" : `p${+(row.q * 100).toPrecision(6)}`),
    number(duration(row.value_ns)), element("td", { className: "bars" }, bar(0, row.value_ns / longest)),
    number(row.rank), element("td", {}, ...row.exemplars.slice(0, 3).map(traceLink))));
  return [element("h1", {}, name),
    element("div", { className: "soft" }, `${answer.count} served, ${time(answer.start_unix_nano)} to ${time(answer.end_unix_nano)}; ` +
      "values are upper edges of buckets 0.1 % wide"),
    coverage(answer.coverage.reasons.join("; ")),
    answer.count === 0 ? element("p", {}, "No spans in this window.") :
      element("table", {}, header("", ">latency", "", ">rank", "traces in that bucket"), ...rows)];
}

function coverage(text) {
  return text ? element("div", { className: "notice" }, `Not everything is in this answer: ${text}`) : null;
}

// Beside the critical path bars are thin.
function bar(from, length, beside = false) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 1000 14");
  svg.setAttribute("preserveAspectRatio", "none");
  const rect = document.createElementNS(SVG, "rect");
  for (const [name, value] of [["x", from * 1000], ["width", Math.max(2, length * 1000)], ["y", beside ? 5 : 2], ["height", beside ? 4 : 10]]) {
    rect.setAttribute(name, value);
  }
  rect.setAttribute("class", beside ? "bar beside" : "bar");
  svg.append(rect);
  return svg;
}

function value(any) {
  const [kind, content] = Object.entries(any || {})[0] || ["", ""];
  return kind === "arrayValue" || kind === "kvlistValue" ? JSON.stringify(content) : String(content);
}

function attributes(list) {
  return Object.fromEntries((list || []).map(({ key, value: any }) => [key, value(any)]));
}

function spansOf(trace) {
  return trace.resourceSpans.flatMap((resource) => {
    const of = attributes(resource.resource.attributes);
    return resource.scopeSpans.flatMap(({ scope, spans }) => spans.map((span) => ({
      id: span.spanId, kind: span.kind || 0, parent: span.parentSpanId || "", name: span.name || "unknown", resource: of,
      service: of["service.name"] || "unknown_service", scope: scope?.name || "",
      start: BigInt(span.startTimeUnixNano || 0), end: BigInt(span.endTimeUnixNano || 0),
      error: span.status?.code === 2, message: span.status?.message, attributes: attributes(span.attributes),
      events: (span.events || []).map((event) => [event.name, attributes(event.attributes)]),
    })));
  });
}

// Parents before children, by start; what has no stored parent stands at the top; a cycle is entered once.
function inOrder(spans) {
  const ids = new Set(spans.map((span) => span.id));
  const children = new Map();
  for (const span of spans) {
    const parent = ids.has(span.parent) && span.parent !== span.id ? span.parent : "";
    children.set(parent, [...(children.get(parent) || []), span]);
  }
  const seen = new Set();
  const ordered = [];
  const visit = (first) => {
    const stack = [[first, 0]];
    while (stack.length > 0) {
      const [span, depth] = stack.pop();
      if (seen.has(span)) continue;
      seen.add(span);
      ordered.push([span, depth]);
      stack.push(...(children.get(span.id) || []).map((child) => [child, depth + 1]).reverse());
    }
  };
  for (const span of children.get("") || []) visit(span);
  for (const span of spans) visit(span);
  return ordered;
}

/** Cut, so that only the slowest is "max". */
function rank(percentile) {
  if (percentile >= 1) return "max";
  const scale = percentile < 0.999 ? 1000 : 10000;
  const cut = Math.min(Math.floor(percentile * scale + 1e-6), scale - 1);
  return `p${(cut / (scale / 100)).toFixed(scale === 1000 ? 1 : 2)}`;
}

/** Gives each span its rank and its part of the critical path; of spans with one id and kind to the first. */
function addStanding(spans, { ranks = [], criticalPath = [] }) {
  const known = new Map(spans.map((span) => [`${span.id} ${span.kind}`, span]).reverse());
  const of = (row) => known.get(`${row.spanId} ${row.kind}`) || {};
  for (const row of ranks) of(row).rank = row;
  for (const row of criticalPath) of(row).onPath = row.selfTimeNano;
  return new Set(criticalPath.map((row) => row.rootSpanId)).size;
}

/** What the span's standing is in words. */
function standing(span, trees) {
  const said = {};
  if (span.rank) {
    const { percentile, count, series } = span.rank;
    said.rank = `${rank(percentile)} of ${count.toLocaleString("en")} ${series} spans within half an hour`;
  }
  if (trees > 0) {
    said["critical path"] = span.onPath === undefined ? "not on it" : `${duration(span.onPath)} of its own`;
  }
  return said;
}

function details(span, trees) {
  const own = { span: span.id, ...standing(span, trees), scope: span.scope, ...(span.message ? { status: span.message } : {}) };
  const rows = [...Object.entries(own), ...Object.entries(span.attributes)];
  for (const [name, of] of span.events) rows.push([`event ${name}`, Object.entries(of).map(([k, v]) => `${k}=${v}`).join("  ")]);
  const row = (className) => ([key, text]) =>
    element("tr", { className }, element("td", { className: "soft" }, key), element("td", { className: "mono" }, text));
  // Apart from the span's own, which may have the same keys.
  return element("table", { className: "details" }, ...rows.map(row("")), ...Object.entries(span.resource).map(row("resource")));
}

async function showTrace(id, wanted) {
  const [trace, missing] = await ask(`/spandrel/v1/traces/${encodeURIComponent(id)}`);
  const spans = spansOf(trace).sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  const trees = addStanding(spans, trace.spandrel || {});
  const timed = spans.filter((span) => span.start > 0n && span.end >= span.start);
  const start = timed.reduce((least, span) => (span.start < least ? span.start : least), timed[0]?.start ?? 0n);
  const end = timed.reduce((most, span) => (span.end > most ? span.end : most), start);
  const whole = Math.max(1, Number(end - start));
  const rows = inOrder(spans).map(([span, depth]) => {
    const length = Number(span.end - span.start);
    const name = element("div", { className: "name", title: span.name },
      element("span", { className: "service" }, span.service), ` ${span.name}`);
    name.style.paddingLeft = `${Math.min(depth, 30) * 0.8}rem`;
    const percentile = span.rank?.percentile ?? 0;
    const slow = percentile >= 0.99 ? " slowest" : percentile >= 0.95 ? " slow" : "";
    const row = element("div", { className: `span${span.error ? " error" : ""}${span.id === wanted ? " exact" : ""}` },
      name, element("div", { className: "time" }, length >= 0 ? duration(length) : "\u2013"),
      element("div", { className: `rank${slow}` }, span.rank ? rank(percentile) : ""),
      bar(Number(span.start - start) / whole, Math.max(0, length) / whole, trees > 0 && span.onPath === undefined));
    const holder = element("div", {}, row);
    let open = null;
    const toggle = () => {
      if (open) { open.remove(); open = null; } else { open = details(span, trees); holder.append(open); }
      row.classList.toggle("open", open !== null);
    };
    row.addEventListener("click", toggle);
    if (span.id === wanted) toggle();
    return holder;
  });
  const services = new Set(spans.map((span) => span.service)).size;
  return [element("h1", { className: "mono" }, id),
    element("div", { className: "soft" }, `${time(String(start))}, ${duration(whole)}, ${spans.length} spans, ${services} services; click a span`),
    trees === 0 ? null : element("div", { className: "soft" },
      `thick bars: on the critical path${trees > 1 ? " of their tree" : ""}; p97.3: 97.3 % of such spans within half an hour were not slower`),
    coverage(missing), element("div", { className: "spans" }, ...rows)];
}

async function show() {
  const [, page, ...rest] = location.hash.split("/").map(decodeURIComponent);
  try {
    const nodes = await (page === "service" ? showService(rest[0], rest[1])
      : page === "trace" ? showTrace(rest[0], rest[1]) : showServices());
    main.replaceChildren(...nodes.filter((node) => node !== null));
  } catch (error) {
    main.replaceChildren(element("div", { className: "notice" }, error.message));
  }
}

last.addEventListener("change", show);
window.addEventListener("hashchange", show);
document.getElementById("jump").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = `#/trace/${document.getElementById("trace").value.trim()}`;
});
show();
