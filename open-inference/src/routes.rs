//! The paths of the protocol and what answers each.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tidegate_inference::TensorSpec;

use crate::body;
use crate::budget::{Budget, Charge};
use crate::coding::Coding;
use crate::error::ErrorReply;
use crate::infer_request::{self, Parsed, Target};
use crate::infer_response::{self, JSON_LEN};
use crate::json_body::JsonBody;
use crate::{Infer, Limits};

/// Work on more bytes than this moves to the blocking pool: at some 200 MB/s of JSON it would hold
/// an executor thread for more than 0.3 ms, and the move costs about a tenth of that.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Most bytes of tensor that one byte of JSON can make: `0,` becomes a FP64.
const JSON_EXPANSION_MAX: usize = 4;

/// The routes `/v2/...`; the caller serves them. Everything else is answered 404 in JSON.
pub fn router<I: Infer>(service: Arc<I>, limits: Limits) -> Router {
    let front = Arc::new(Front {
        budget: Budget::new(limits.bodies_bytes_max),
        service,
        limits,
    });
    let metadata = || get(model_metadata::<I>);
    let ready = || get(model_ready::<I>);
    let infer = || post(infer::<I>);
    Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/", get(server_metadata))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(server_ready::<I>))
        .route("/v2/repository/index", get(index::<I>).post(index::<I>))
        .route("/v2/models/{model}", metadata())
        .route("/v2/models/{model}/ready", ready())
        .route("/v2/models/{model}/infer", infer())
        .route("/v2/models/{model}/versions/{version}", metadata())
        .route("/v2/models/{model}/versions/{version}/ready", ready())
        .route("/v2/models/{model}/versions/{version}/infer", infer())
        .fallback(async |uri: Uri| ErrorReply::no_such_path(&uri))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            ErrorReply::method_not_allowed(&method, &uri)
        })
        .with_state(front)
}

/// What every handler shares.
struct Front<I> {
    service: Arc<I>,
    limits: Limits,
    budget: Budget,
}

type FrontState<I> = State<Arc<Front<I>>>;
type TargetPath = Result<Path<Target>, PathRejection>;

async fn infer<I: Infer>(
    State(front): FrontState<I>,
    target: TargetPath,
    request: axum::extract::Request,
) -> Result<Response, ErrorReply> {
    let Path(target) = target.map_err(|error| ErrorReply::invalid(error.body_text()))?;
    let (Parts { headers, .. }, body) = request.into_parts();
    let model = target.model.clone();
    let (parsed, mut charge) = receive(&front, target, &headers, body).await?;
    let Parsed { request, wanted } = parsed;
    let id = request.id.clone();
    let reply = front.service.infer(request).await?;
    charge.resize(infer_response::held_bytes(&reply))?;
    let coding = Coding::accepted(&headers);
    let work_bytes = infer_response::work_bytes(&wanted, &reply, coding);
    let write = move || {
        let id = id.as_deref();
        let encoded = infer_response::encode(&model, id, &wanted, &reply, &mut charge)?;
        drop(reply);
        encoded.into_response(coding, charge)
    };
    let response = match work_bytes {
        ..=INLINE_BYTES_MAX => write(),
        _ => off_executor(write).await,
    };
    Ok(response?)
}

/// Reads, expands and parses an inference request. What it holds is charged until the charge drops.
async fn receive<I: Infer>(
    front: &Arc<Front<I>>,
    target: Target,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Parsed, Charge), ErrorReply> {
    let coding = Coding::of_request(headers)?;
    let json_len = json_len(headers)?;
    let mut charge = front.budget.charge();
    let body = body::read(body, &front.limits, &mut charge).await?;
    let now = Instant::now();
    let inline = coding.is_none() && json_len.unwrap_or(body.len()) <= INLINE_BYTES_MAX;
    let front = Arc::clone(front);
    let work = move || {
        let body = match coding {
            None => body,
            Some(coding) => coding.expand(&body, front.limits.body_bytes_max, &mut charge)?,
        };
        let parsed = match json_len {
            Some(0) => {
                let metadata = front
                    .service
                    .model(&target.model, target.version.as_deref())?;
                infer_request::parse_raw(target, metadata, body)?
            }
            Some(len) if len > body.len() => {
                return Err(ErrorReply::invalid(format!(
                    "{JSON_LEN}: {len} bytes of JSON announced, the body has {}",
                    body.len()
                )));
            }
            len => {
                let len = len.unwrap_or(body.len());
                charge.grow(len.saturating_mul(JSON_EXPANSION_MAX))?;
                infer_request::parse(target, &body, len, now)?
            }
        };
        charge.shrink_to(held_bytes(&parsed, json_len));
        Ok((parsed, charge))
    };
    match inline {
        true => work(),
        false => off_executor(work).await,
    }
}

/// Memory that a parsed request keeps alive: its tensors, and the JSON that binary ones share a
/// body with.
fn held_bytes(parsed: &Parsed, json_len: Option<usize>) -> usize {
    let inputs = parsed.request.inputs.iter();
    let tensors: usize = inputs.map(|input| input.tensor.data().len()).sum();
    tensors + json_len.unwrap_or(0)
}

/// The length of the JSON at the start of the body; `None` if all of it is JSON.
fn json_len(headers: &HeaderMap) -> Result<Option<usize>, ErrorReply> {
    let mut values = headers.get_all(JSON_LEN).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value
        .to_str()
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(len) if values.next().is_none() => Ok(Some(len)),
        _ => Err(ErrorReply::invalid(format!(
            "{JSON_LEN}: expected one whole number of bytes, got {value:?}"
        ))),
    }
}

async fn off_executor<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

#[derive(Serialize)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 3],
}

async fn server_metadata() -> JsonBody<ServerMetadata> {
    JsonBody(ServerMetadata {
        name: "tidegate",
        version: env!("CARGO_PKG_VERSION"),
        extensions: ["binary_tensor_data", "parameters", "schedule_policy"],
    })
}

async fn live() -> JsonBody<serde_json::Value> {
    JsonBody(serde_json::json!({ "live": true }))
}

async fn server_ready<I: Infer>(State(front): FrontState<I>) -> Response {
    let ready = front.service.is_ready();
    let body = JsonBody(serde_json::json!({ "ready": ready }));
    (readiness(ready), body).into_response()
}

async fn model_ready<I: Infer>(
    State(front): FrontState<I>,
    target: TargetPath,
) -> Result<Response, ErrorReply> {
    let Path(target) = target.map_err(|error| ErrorReply::invalid(error.body_text()))?;
    let metadata = front
        .service
        .model(&target.model, target.version.as_deref())?;
    let ready = front.service.takes_requests();
    let body = JsonBody(serde_json::json!({ "name": metadata.name, "ready": ready }));
    Ok((readiness(ready), body).into_response())
}

fn readiness(ready: bool) -> StatusCode {
    match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[derive(Serialize)]
struct ModelObject {
    name: String,
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

async fn model_metadata<I: Infer>(
    State(front): FrontState<I>,
    target: TargetPath,
) -> Result<JsonBody<ModelObject>, ErrorReply> {
    let Path(target) = target.map_err(|error| ErrorReply::invalid(error.body_text()))?;
    let metadata = front
        .service
        .model(&target.model, target.version.as_deref())?;
    Ok(JsonBody(ModelObject {
        versions: front.service.model_versions(&metadata.name),
        name: metadata.name,
        platform: metadata.platform,
        inputs: metadata.inputs,
        outputs: metadata.outputs,
    }))
}

#[derive(Serialize)]
struct IndexEntry {
    name: String,
    version: String,
    state: &'static str,
    reason: &'static str,
}

/// Triton's repository index. Every model listed is loaded, so the `ready` filter changes nothing
/// and the body is not looked at.
async fn index<I: Infer>(State(front): FrontState<I>) -> JsonBody<Vec<IndexEntry>> {
    let mut entries = Vec::new();
    for name in front.service.model_names() {
        let versions = front.service.model_versions(&name);
        entries.extend(versions.into_iter().map(|version| IndexEntry {
            name: name.clone(),
            version,
            state: "READY",
            reason: "",
        }));
    }
    JsonBody(entries)
}
