//! `opentelemetry.proto.collector.trace.v1.TraceService/Export`, unary gRPC, and the health service.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use tonic::Code;

use crate::ingest::{Encoding, ExportError, Exported, Permit};

use super::super::Doors;
use super::super::body::{self, Announced};
use super::super::grpc::{self, failure, is_grpc, message};
use super::super::refusal::{BodyError, Refusal};
use super::{Sender, http, partial_success};

pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

pub(super) fn router() -> Router<Doors> {
    Router::new().route(EXPORT, post(export).fallback(not_grpc)).route(HEALTH, post(health).fallback(not_grpc))
}

async fn export(State(doors): State<Doors>, request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return not_grpc().await;
    }
    let jitter = doors.query.now().0;
    match answer(&doors, request).await {
        Ok(exported) => success(exported),
        Err(error) => failure(&Refusal::of_body(&error, jitter)),
    }
}

/// Within the client's own deadline, if it names one: nobody listens after that (OTLP-34).
async fn answer(doors: &Doors, request: Request) -> Result<Exported, BodyError> {
    let sender = Sender::of(&request);
    let (parts, body) = request.into_parts();
    let deadline = grpc::deadline(&parts.headers)?;
    let work = async {
        let received = receive(doors, &parts.headers, body).await?;
        Ok(doors.export(received, Encoding::Protobuf, &sender).await?)
    };
    match deadline {
        None => work.await,
        Some(deadline) => {
            tokio::time::timeout(deadline, work).await.unwrap_or(Err(BodyError::Refused(ExportError::Late)))
        }
    }
}

/// The one message of a unary call, inflated.
async fn receive(doors: &Doors, headers: &HeaderMap, mut body: Body) -> Result<(Vec<u8>, Permit), BodyError> {
    let coding = grpc::coding(headers)?;
    let (framed, mut permit) = body::read(doors, &mut body, Announced::InFront).await?;
    let (framed, coding) = grpc::unframed(framed, coding)?;
    let message = body::inflate(doors, framed, coding, &mut permit).await?;
    Ok((message, permit))
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(prost::Message)]
struct Health {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `grpc.health.v1`: SERVING when spans are stored, whichever service is asked for (OTLP-73).
async fn health(State(doors): State<Doors>, headers: HeaderMap) -> Response {
    const SERVING: i32 = 1;
    const NOT_SERVING: i32 = 2;
    if !is_grpc(&headers) {
        return not_grpc().await;
    }
    let status = if doors.readiness().ready { SERVING } else { NOT_SERVING };
    message(&Health { status })
}

fn success(exported: Exported) -> Response {
    message(&ExportTraceServiceResponse { partial_success: partial_success(exported) })
}

/// Whoever asks so does not read gRPC.
async fn not_grpc() -> Response {
    let message = "this path speaks gRPC (content-type application/grpc); OTLP over HTTP is POST /v1/traces";
    let refusal = Refusal::with_status(Code::InvalidArgument, StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    http::failure(&refusal, Encoding::Json)
}
