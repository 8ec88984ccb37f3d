//! A server of identity models, and the requests to try it with.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request as HttpRequest, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tidegate_inference::{
    Dtype, Failure, FailureKind, ModelMetadata, Placement, Reason, Reply, Request, TensorSpec,
    Timings,
};
use tidegate_open_inference::{Infer, Limits, router};
use tower::ServiceExt;

/// Serves models that give back their inputs: `echo` takes anything, `row` one FP32 of shape
/// `[-1, 2]`, `image` one BYTES of shape `[1]`. A model named like a failure kind fails so.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) ready: bool,
    /// The requests that arrived.
    pub(crate) seen: Mutex<Vec<Request>>,
    pub(crate) retry_after: Option<Duration>,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            ready: true,
            seen: Mutex::default(),
            retry_after: None,
        }
    }
}

impl Infer for Echo {
    async fn infer(&self, request: Request) -> Result<Reply, Failure> {
        self.seen.lock().unwrap().push(request.clone());
        let kinds = FailureKind::ALL;
        if let Some(kind) = kinds.iter().find(|kind| kind.name() == request.model) {
            let mut failure = Failure::new(*kind, format!("asked to fail as {}", kind.name()));
            failure.retry_after = self.retry_after;
            return Err(failure);
        }
        let metadata = self.model(&request.model, request.version.as_deref())?;
        if metadata.name != "echo" {
            metadata.check_inputs(&request.inputs)?;
        }
        let placement = match request.id.as_deref() {
            Some("to a relay") => Placement::Relay("relay-7".into()),
            _ => Placement::Local,
        };
        Ok(Reply {
            version: metadata.version,
            outputs: request.inputs,
            placement,
            reason: Reason::Capacity,
            timings: Timings {
                queue: Duration::from_micros(12),
                infer: Duration::from_micros(3400),
            },
        })
    }

    fn model(&self, name: &str, version: Option<&str>) -> Result<ModelMetadata, Failure> {
        let spec = |name: &str, dtype, shape: &[i64]| TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        };
        let inputs = match (name, version) {
            ("echo", None | Some("2.1")) => vec![
                spec("a", Dtype::Int8, &[-1]),
                spec("b", Dtype::Fp64, &[-1, -1]),
            ],
            ("row", None | Some("2.1")) => vec![spec("a", Dtype::Fp32, &[-1, 2])],
            ("image", None | Some("2.1")) => vec![spec("image", Dtype::Bytes, &[1])],
            _ => {
                let message = format!("there is no model {name:?} of version {version:?}");
                return Err(Failure::new(FailureKind::NotFound, message));
            }
        };
        Ok(ModelMetadata {
            name: name.into(),
            version: "2.1".into(),
            platform: "echo",
            outputs: inputs.clone(),
            inputs,
        })
    }

    fn model_versions(&self, name: &str) -> Vec<String> {
        let metadata = self.model(name, None).ok();
        metadata
            .map(|metadata| metadata.version)
            .into_iter()
            .collect()
    }

    fn model_names(&self) -> Vec<String> {
        vec!["echo".into(), "row".into(), "image".into()]
    }

    fn takes_requests(&self) -> bool {
        self.is_ready()
    }

    fn is_ready(&self) -> bool {
        self.ready
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?} {:?}", self.status, self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The message of a refusal, which is JSON whatever was refused.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        assert!(!self.status.is_success(), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let Value::Object(fields) = self.json() else {
            panic!("{self:?}");
        };
        assert_eq!(fields.len(), 1, "{fields:?}");
        fields["error"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn send(request: HttpRequest<Body>) -> Answer {
    send_to(Echo::default(), Limits::default(), request).await
}

pub(crate) async fn send_to(
    echo: impl Into<Arc<Echo>>,
    limits: Limits,
    request: HttpRequest<Body>,
) -> Answer {
    let response = router(echo.into(), limits).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

pub(crate) fn get(path: &str) -> HttpRequest<Body> {
    HttpRequest::get(path).body(Body::empty()).unwrap()
}

/// An inference request to `echo`.
pub(crate) fn infer(body: impl Into<Body>) -> HttpRequest<Body> {
    post("/v2/models/echo/infer", body)
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> HttpRequest<Body> {
    HttpRequest::post(path).body(body.into()).unwrap()
}

/// An inference request to `model` with JSON and the tensor data after it.
pub(crate) fn infer_binary(model: &str, json: &str, tail: &[u8]) -> HttpRequest<Body> {
    let body = [json.as_bytes(), tail].concat();
    HttpRequest::post(format!("/v2/models/{model}/infer"))
        .header("Inference-Header-Content-Length", json.len())
        .body(body.into())
        .unwrap()
}
