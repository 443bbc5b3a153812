//! Requests as bytes, over a connection that stays: what a client library would not let a test send.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;

/// Nothing takes longer; a server that does is a failure.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The three ways to send spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Grpc,
    Protobuf,
    Json,
}

/// How the body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    pub(crate) fn encode(self, body: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        match self {
            Self::Identity => body.to_vec(),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(body).and_then(|()| encoder.finish()).expect("memory does not fail")
            }
            Self::Zstd => zstd::encode_all(body, 1).expect("memory does not fail"),
        }
    }

    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// What came back, whatever the transport.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Of gRPC: from headers or trailers.
    pub(crate) grpc_status: Option<i32>,
    pub(crate) body: Vec<u8>,
    transport: Transport,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("?"))
    }

    /// Rejected spans and message of a success.
    pub(crate) fn partial(&self) -> (i64, String) {
        match self.transport {
            Transport::Grpc => partial(self.body.get(5..).unwrap_or_default()),
            Transport::Protobuf => partial(&self.body),
            Transport::Json => {
                let json: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
                assert!(json.is_object());
                let partial = &json["partialSuccess"];
                let rejected = partial["rejectedSpans"].as_str().map_or(0, |text| text.parse().expect("a number"));
                (rejected, partial["errorMessage"].as_str().unwrap_or_default().to_owned())
            }
        }
    }

    /// The message of a failure, from the `google.rpc.Status` that every failure carries.
    pub(crate) fn error(&self) -> String {
        match self.transport {
            Transport::Grpc => percent_decoded(self.header("grpc-message")),
            Transport::Protobuf => {
                tonic_types::Status::decode(self.body.as_slice()).expect("otlp_39: a google.rpc.Status").message
            }
            Transport::Json => {
                let json: serde_json::Value = serde_json::from_slice(&self.body).expect("otlp_39: JSON");
                json["message"].as_str().expect("a message").to_owned()
            }
        }
    }
}

fn partial(message: &[u8]) -> (i64, String) {
    let response = ExportTraceServiceResponse::decode(message).expect("an ExportTraceServiceResponse");
    response.partial_success.map_or((0, String::new()), |partial| (partial.rejected_spans, partial.error_message))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        let digits = if byte == b'%' { bytes.next().zip(bytes.next()) } else { None };
        let hex = digits.map(|(a, b)| String::from_utf8_lossy(&[a, b]).into_owned());
        decoded.push(hex.map_or(byte, |hex| u8::from_str_radix(&hex, 16).expect("hex")));
    }
    String::from_utf8(decoded).expect("UTF-8")
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// One connection.
pub(crate) struct Wire {
    sender: Sender,
    transport: Transport,
    address: SocketAddr,
}

impl Wire {
    /// gRPC over HTTP/2, the others over HTTP/1.1.
    pub(crate) async fn connect(address: SocketAddr, transport: Transport) -> Self {
        let stream = tokio::net::TcpStream::connect(address).await.expect("the port answers");
        stream.set_nodelay(true).expect("an option");
        let io = TokioIo::new(stream);
        let sender = match transport {
            Transport::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
                let _detached = tokio::spawn(connection);
                Sender::Http2(sender)
            }
            Transport::Protobuf | Transport::Json => {
                let (sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
                let _detached = tokio::spawn(connection);
                Sender::Http1(sender)
            }
        };
        Self { sender, transport, address }
    }

    /// A whole export of an uncompressed body.
    pub(crate) async fn export(&mut self, coding: Coding, body: &[u8]) -> Reply {
        let encoded = coding.encode(body);
        match self.transport {
            Transport::Grpc => {
                let flag = u8::from(coding != Coding::Identity);
                let headers: Vec<_> = coding.name().map(|name| ("grpc-encoding", name)).into_iter().collect();
                self.grpc(&headers, framed(flag, &encoded)).await
            }
            Transport::Protobuf | Transport::Json => {
                let headers: Vec<_> = coding.name().map(|name| ("content-encoding", name)).into_iter().collect();
                self.http(&headers, encoded).await
            }
        }
    }

    /// An export by gRPC with the bytes as they are, framing included.
    pub(crate) async fn grpc(&mut self, headers: &[(&str, &str)], framed: Vec<u8>) -> Reply {
        self.call(EXPORT, headers, framed).await
    }

    /// A POST to any path over HTTP/2, gRPC unless the headers say otherwise.
    pub(crate) async fn call(&mut self, path: &str, headers: &[(&str, &str)], framed: Vec<u8>) -> Reply {
        let mut all = vec![("te", "trailers")];
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/grpc"));
        }
        all.extend(headers);
        let uri = format!("http://{}{path}", self.address);
        self.send(&uri, &all, framed).await.expect("the connection stays")
    }

    /// A POST to `/v1/traces` with the bytes as they are.
    pub(crate) async fn http(&mut self, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let content_type =
            if self.transport == Transport::Json { "application/json" } else { "application/x-protobuf" };
        let host = self.address.to_string();
        let mut all = vec![("host", host.as_str()), ("content-type", content_type)];
        all.extend(headers);
        self.send("/v1/traces", &all, body).await.expect("the connection stays")
    }

    /// The same, of a body that may be refused before it is read: then the connection ends.
    pub(crate) async fn try_http(&mut self, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Reply, hyper::Error> {
        let mut all = vec![("host", "a"), ("content-type", "application/x-protobuf")];
        all.extend(headers);
        self.send("/v1/traces", &all, body).await
    }

    async fn send(&mut self, uri: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Reply, hyper::Error> {
        let mut request = Request::builder().method("POST").uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let work = async {
            let response = match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await?
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await?
                }
            };
            let (parts, body) = response.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            let status = parts.headers.get("grpc-status").or(trailers.get("grpc-status"));
            let grpc_status = status.map(|value| value.to_str().expect("text").parse().expect("a number"));
            let body = body.to_bytes().to_vec();
            let (status, headers) = (parts.status.as_u16(), parts.headers);
            Ok::<_, hyper::Error>(Reply { status, headers, grpc_status, body, transport: self.transport })
        };
        tokio::time::timeout(ANSWER_WITHIN, work).await.expect("it answers in time")
    }
}

/// A gRPC message with its five bytes in front.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut framed = vec![flag];
    framed.extend(u32::try_from(message.len()).expect("a message of less than 4 GiB").to_be_bytes());
    framed.extend(message);
    framed
}
