//! A receiver of remote write 1.0 and 2.0 that answers as it is told. It reads the bodies by messages of its own, written down
//! from the specifications, and keeps their rules: a body that breaks one ends the test.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use prost::Message;

/// `prometheus.WriteRequest`.
#[derive(Clone, PartialEq, Message)]
struct RequestOne {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<SeriesOne>,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesOne {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<ExemplarOne>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// 1.0 has no start.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Sample {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
    #[prost(int64, tag = "2")]
    pub(super) timestamp: i64,
    #[prost(int64, tag = "3")]
    pub(super) start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ExemplarOne {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

/// The same in both; 1.0 has no start.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(oneof = "Count", tags = "1, 2")]
    pub(super) count: Option<Count>,
    #[prost(double, tag = "3")]
    pub(super) sum: f64,
    #[prost(sint32, tag = "4")]
    pub(super) schema: i32,
    #[prost(double, tag = "5")]
    pub(super) zero_threshold: f64,
    #[prost(oneof = "ZeroCount", tags = "6, 7")]
    pub(super) zero_count: Option<ZeroCount>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(int32, tag = "14")]
    pub(super) reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub(super) timestamp: i64,
    #[prost(int64, tag = "17")]
    pub(super) start_timestamp: i64,
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
pub(super) enum Count {
    #[prost(uint64, tag = "1")]
    Int(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
pub(super) enum ZeroCount {
    #[prost(uint64, tag = "6")]
    Int(u64),
    #[prost(double, tag = "7")]
    Float(f64),
}

#[derive(Clone, Copy, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

impl Histogram {
    /// Counts by index; bucket i reaches up to 2^(i / 8).
    pub(super) fn buckets(&self) -> BTreeMap<i32, u64> {
        let (mut index, mut count) = (0, 0_i64);
        let mut deltas = self.positive_deltas.iter();
        let mut buckets = BTreeMap::new();
        for span in &self.positive_spans {
            index += span.offset;
            for _ in 0..span.length {
                count += deltas.next().expect("a delta for each bucket");
                let _new = buckets.insert(index, u64::try_from(count).expect("no bucket holds less than nothing"));
                index += 1;
            }
        }
        assert_eq!(deltas.next(), None, "a bucket for each delta");
        buckets
    }
}

/// `io.prometheus.write.v2.Request`.
#[derive(Clone, PartialEq, Message)]
struct RequestTwo {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<SeriesTwo>,
}

#[derive(Clone, PartialEq, Message)]
struct SeriesTwo {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<ExemplarTwo>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct ExemplarTwo {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

pub(super) type Labels = BTreeMap<String, String>;

/// A series of either version.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) labels: Labels,
    pub(super) sample: Option<Sample>,
    pub(super) histogram: Option<Histogram>,
    /// When it was 0 before its first sample.
    pub(super) zero_at: Option<i64>,
    /// Labels, value, milliseconds.
    pub(super) exemplars: Vec<(Labels, f64, i64)>,
    /// Number of the type, and the help; 1.0 has none.
    pub(super) metadata: Option<(i32, String)>,
}

impl Series {
    fn of(labels: Labels, samples: &[Sample], histograms: &[Histogram]) -> Self {
        assert!(samples.is_empty() || histograms.is_empty(), "one kind of sample of {labels:?}");
        let zeros: Vec<(bool, i64)> = match (samples, histograms) {
            ([zeros @ .., _], []) => zeros.iter().map(|zero| (zero.value == 0.0, zero.timestamp)).collect(),
            ([], [zeros @ .., _]) => {
                zeros.iter().map(|zero| (zero.positive_deltas.is_empty() && zero.sum == 0.0, zero.timestamp)).collect()
            }
            _ => panic!("no sample of {labels:?}"),
        };
        assert!(zeros.iter().all(|(is_zero, _)| *is_zero), "{zeros:?} of {labels:?}");
        assert!(zeros.len() < 2, "one sample of {labels:?}, and a 0 before");
        let (sample, histogram) = (samples.last().copied(), histograms.last().cloned());
        let zero_at = zeros.first().map(|(_, at)| *at);
        Self { labels, sample, histogram, zero_at, exemplars: Vec::new(), metadata: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.labels["__name__"]
    }

    pub(super) fn timestamp(&self) -> i64 {
        self.sample
            .map_or_else(|| self.histogram.as_ref().expect("one of the two").timestamp, |sample| sample.timestamp)
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) series: Vec<Series>,
}

impl Request {
    /// "1" or "2", told by the type.
    pub(super) fn version(&self) -> &'static str {
        let of = |name: &str| self.headers[name].as_str();
        match (of("content-type"), of("x-prometheus-remote-write-version")) {
            ("application/x-protobuf", "0.1.0") => "1",
            ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0") => "2",
            other => panic!("{other:?}"),
        }
    }

    /// The edge that all samples are of.
    pub(super) fn edge(&self) -> i64 {
        let edges: BTreeSet<i64> = self.series.iter().map(Series::timestamp).collect();
        assert_eq!(edges.len(), 1, "one edge a request: {edges:?}");
        *edges.first().expect("there is one")
    }

    pub(super) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |one| one.name() == name)
    }

    /// The sum of a counter over its series.
    pub(super) fn sum(&self, name: &str) -> u64 {
        self.of(name).map(|one| one.sample.expect("a counter").value as u64).sum()
    }
}

/// An answer: the status, further header lines, the body.
pub(super) type Reply = (u16, String, &'static str);

/// What a receiver of 2.0 says that wrote everything.
pub(super) fn all_written(request: &Request) -> Reply {
    let of = |one: &&Series| 1 + usize::from(one.zero_at.is_some());
    let (histograms, samples): (Vec<&Series>, Vec<&Series>) =
        request.series.iter().partition(|one| one.histogram.is_some());
    (204, written(samples.iter().map(of).sum(), histograms.iter().map(of).sum()), "")
}

pub(super) fn written(samples: usize, histograms: usize) -> String {
    let head = "X-Prometheus-Remote-Write";
    format!(
        "{head}-Samples-Written: {samples}\r\n{head}-Histograms-Written: {histograms}\r\n{head}-Exemplars-Written: 0\r\n"
    )
}

/// Ends with the process of the test.
pub(super) struct Receiver {
    pub(super) url: String,
    requests: mpsc::Receiver<Request>,
}

impl Receiver {
    /// `reply` is asked for each request; what it was told is then to be had by `next`.
    pub(super) fn new(mut reply: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/api/v1/write", listener.local_addr().expect("it is bound"));
        let (sender, requests) = mpsc::channel();
        let _ends_with_the_test = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let request = read(&stream);
                let (status, headers, body) = reply(&request);
                if sender.send(request).is_err() {
                    break;
                }
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} Some\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
                // Whoever is being stopped does not wait for it.
                let _gone = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { url, requests }
    }

    pub(super) fn next(&self) -> Request {
        self.requests.recv_timeout(Duration::from_mins(1)).expect("a request within a minute")
    }

    /// The first one that is so.
    pub(super) fn first(&self, is_it: impl Fn(&Request) -> bool) -> Request {
        std::iter::repeat_with(|| self.next()).find(|request| is_it(request)).expect("they do not end")
    }
}

fn read(stream: &TcpStream) -> Request {
    let mut reader = BufReader::new(stream);
    let mut headers = BTreeMap::new();
    let mut lines = reader.by_ref().lines().map(|line| line.expect("a line"));
    assert_eq!(lines.next().as_deref(), Some("POST /api/v1/write HTTP/1.1"));
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').expect("a header");
        let _twice = headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    assert!(headers["user-agent"].starts_with("spandrel/"), "{headers:?}");
    assert_eq!(headers["content-encoding"], "snappy");
    let mut body = vec![0; headers["content-length"].parse().expect("a length")];
    reader.read_exact(&mut body).expect("the whole body");
    let body = snap::raw::Decoder::new().decompress_vec(&body).expect("a block of Snappy");
    let mut request = Request { headers, series: Vec::new() };
    request.series = if request.version() == "1" { series_one(&body) } else { series_two(&body) };
    request
}

/// Ascending by name, each name once, nothing empty.
fn labels(pairs: impl Iterator<Item = (String, String)>) -> Labels {
    let pairs: Vec<(String, String)> = pairs.collect();
    assert!(pairs.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{pairs:?}");
    assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0), "{pairs:?}");
    pairs.into_iter().collect()
}

fn series_one(body: &[u8]) -> Vec<Series> {
    let named = |all: &[Label]| labels(all.iter().map(|one| (one.name.clone(), one.value.clone())));
    let request = RequestOne::decode(body).expect("a request of 1.0");
    let series = request.timeseries.iter().map(|one| {
        let exemplars = one.exemplars.iter().map(|of| (named(&of.labels), of.value, of.timestamp)).collect();
        Series { exemplars, ..Series::of(named(&one.labels), &one.samples, &one.histograms) }
    });
    series.collect()
}

fn series_two(body: &[u8]) -> Vec<Series> {
    let as_one = RequestOne::decode(body).expect("it can be taken for 1.0");
    assert_eq!(as_one.timeseries, [], "who takes it for 1.0 finds nothing");
    let request = RequestTwo::decode(body).expect("a request of 2.0");
    assert_eq!(request.symbols.first().map(String::as_str), Some(""));
    let different: BTreeSet<&String> = request.symbols.iter().collect();
    assert_eq!(different.len(), request.symbols.len(), "each text once");
    let text = |at: u32| request.symbols[at as usize].clone();
    let named = |refs: &[u32]| {
        assert_eq!(refs.len() % 2, 0);
        labels(refs.chunks(2).map(|pair| (text(pair[0]), text(pair[1]))))
    };
    let series = request.timeseries.iter().map(|one| {
        let metadata = one.metadata.expect("each series says what it is");
        assert_eq!(metadata.unit_ref, 0);
        Series {
            exemplars: one.exemplars.iter().map(|of| (named(&of.labels_refs), of.value, of.timestamp)).collect(),
            metadata: Some((metadata.kind, text(metadata.help_ref))),
            ..Series::of(named(&one.labels_refs), &one.samples, &one.histograms)
        }
    });
    series.collect()
}
