//! What does the front add to a run? From request to reply over loopback, with a model that gives
//! back its input, and the parts that grow with the tensor on their own.

#![expect(clippy::unwrap_used, reason = "a bench has no one to report to")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tidegate_inference::{
    Failure, FailureKind, ModelMetadata, Placement, Reason, Reply, Request, Timings,
};
use tidegate_open_inference::{Infer, Limits, router};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

struct Identity;

impl Infer for Identity {
    async fn infer(&self, request: Request) -> Result<Reply, Failure> {
        Ok(Reply {
            version: "1".into(),
            outputs: request.inputs,
            placement: Placement::Local,
            reason: Reason::Capacity,
            timings: Timings::default(),
        })
    }

    fn model(&self, name: &str, _: Option<&str>) -> Result<ModelMetadata, Failure> {
        Err(Failure::new(FailureKind::NotFound, name))
    }

    fn model_versions(&self, name: &str) -> Vec<String> {
        let metadata = self.model(name, None).ok();
        metadata
            .map(|metadata| metadata.version)
            .into_iter()
            .collect()
    }

    fn model_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn takes_requests(&self) -> bool {
        self.is_ready()
    }

    fn is_ready(&self) -> bool {
        true
    }
}

async fn connect() -> SendRequest<Full<Bytes>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(Arc::new(Identity), Limits::default());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (client, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A request with one FP32 input of `elements` elements: its headers' JSON length and its body.
fn binary(elements: usize) -> (Option<usize>, Bytes) {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","shape":[{elements}],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        elements * 4
    );
    let body = [json.as_bytes(), &vec![0; elements * 4]].concat();
    (Some(json.len()), body.into())
}

fn json(elements: usize) -> (Option<usize>, Bytes) {
    let data: Vec<f32> = (0_u16..1000).map(|i| f32::from(i).sqrt()).collect();
    let data: Vec<_> = data.iter().cycle().take(elements).collect();
    let json = serde_json::json!({
        "inputs": [{"name": "x", "shape": [elements], "datatype": "FP32", "data": data}],
    });
    (None, json.to_string().into())
}

fn front(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let mut client = runtime.block_on(connect());
    let mut group = criterion.benchmark_group("loopback");
    for (name, (json_len, body)) in [
        ("binary 1 KB", binary(256)),
        ("json 1 KB", json(256)),
        ("binary 600 KB", binary(150_528)),
        ("json 600 KB", json(150_528)),
    ] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut request = hyper::Request::post("/v2/models/x/infer").header("host", "x");
                if let Some(json_len) = json_len {
                    request = request.header("inference-header-content-length", json_len);
                }
                let request = request.body(Full::new(body.clone())).unwrap();
                runtime.block_on(async {
                    client.ready().await.unwrap();
                    let response = client.send_request(request).await.unwrap();
                    assert_eq!(response.status(), 200);
                    black_box(response.into_body().collect().await.unwrap())
                })
            });
        });
    }
}

criterion_group!(benches, front);
criterion_main!(benches);
