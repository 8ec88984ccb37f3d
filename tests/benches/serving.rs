//! What Tidegate adds to a bare run of the graph: over HTTP, and over the hop to a relay.
//!
//! The model adds 256 floats (1 KB) to themselves, so what is measured is everything but the model. Agent
//! and relay are the real processes, on loopback. `bare` runs the same module in this process: the bound
//! that the others are held against, in the same run. `live` is a health check: HTTP without inference.
//! `hop` is one request stream on a kept QUIC connection, from the first byte written to the last read.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use quinn::crypto::rustls::QuicClientConfig;
use tidegate_identity::{IdentityFiles, agent_config};
use tidegate_inference::{Digest, Dtype, Failure, NamedTensor, Priority, Shape, Tensor};
use tidegate_runtime::{Budget, Runtime, RuntimeConfig};
use tidegate_tests::site::Site;
use tidegate_tests::wait::eventually;
use tidegate_wire::{
    ALPN, Answer, ControlMessage, Kind, ModuleOffer, PREFIX_BYTES, Prefix, ReplyHeader,
    RequestMessage,
};
use tokio::net::TcpStream;

const ROWS: usize = 64;
const TENSOR_BYTES: usize = ROWS * 4 * 4;

fn bench(criterion: &mut Criterion) {
    let site = Site::new();
    site.pack_doubler();
    let file = std::fs::read(site.path("doubler.wasm")).expect("the packed module");
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("an executor");
    let mut group = criterion.benchmark_group("serving");
    group.measurement_time(Duration::from_secs(8));

    let file_len = file.len() as u64;
    let runtime = Runtime::start(RuntimeConfig::new(1)).expect("the engine starts");
    let model = runtime.load(file.into()).expect("the module loads");
    let digest = model.digest();
    group.bench_function("bare", |bencher| {
        bencher.iter(|| {
            let budget = Budget::until(Instant::now() + Duration::from_secs(10));
            model
                .infer(vec![input()], &budget)
                .expect("the model answers")
        });
    });

    let agent = site.agent("modules = [\"doubler.wasm\"]\nslots = 1\n");
    let mut client = tokio.block_on(connect(agent.daemon.address()));
    group.bench_function("live", |bencher| {
        bencher.iter(|| tokio.block_on(live(&mut client)));
    });
    group.bench_function("http", |bencher| {
        bencher.iter(|| tokio.block_on(over_http(&mut client)));
    });

    let relay = site.relay("relay", "slots = 1\nmodules = [\"doubler.wasm\"]\n");
    let offer = ModuleOffer {
        name: "doubler".into(),
        digest,
        len: file_len,
    };
    let (_endpoint, connection) = tokio.block_on(dial(&site, relay.daemon.address(), offer));
    group.bench_function("hop", |bencher| {
        bencher.iter(|| {
            let result = tokio.block_on(over_quic(&connection, digest));
            result.expect("the relay answers")
        });
    });
    group.finish();
}

fn input() -> NamedTensor {
    let data = Bytes::from(vec![0; TENSOR_BYTES]);
    let tensor = Tensor::new(Dtype::Fp32, Shape::from_slice(&[ROWS, 4]), data).expect("1 KB");
    NamedTensor {
        name: "x".into(),
        tensor,
    }
}

async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address)
        .await
        .expect("the agent listens");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let (client, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    client
}

/// A request that runs nothing: what HTTP over loopback costs by itself.
async fn live(client: &mut SendRequest<Full<Bytes>>) {
    client.ready().await.expect("the connection is kept");
    let request = Request::get("/v2/health/live")
        .header("host", "localhost")
        .body(Full::default())
        .expect("a request");
    let response = client.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.expect("a body");
}

async fn over_http(client: &mut SendRequest<Full<Bytes>>) {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{ROWS},4],"parameters":{{"binary_data_size":{TENSOR_BYTES}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
    );
    let len = json.len();
    let mut body = json.into_bytes();
    body.resize(len + TENSOR_BYTES, 0);
    let request = Request::post("/v2/models/doubler/infer")
        .header("host", "localhost")
        .header("inference-header-content-length", len)
        .body(Full::new(body.into()))
        .expect("a request");
    client.ready().await.expect("a kept connection");
    let response = client.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("a body");
    assert!(body.to_bytes().len() > TENSOR_BYTES);
}

async fn dial(
    site: &Site,
    relay: SocketAddr,
    offer: ModuleOffer,
) -> (quinn::Endpoint, quinn::Connection) {
    let files = IdentityFiles {
        certificate: site.path("certs/agent.pem"),
        key: site.path("certs/agent.key"),
        ca: site.path("certs/ca.pem"),
    };
    let tls = agent_config(&files, ALPN).expect("certificates");
    let crypto = QuicClientConfig::try_from(tls).expect("TLS 1.3");
    let mut endpoint =
        quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a UDP socket");
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    let connecting = endpoint.connect(relay, "localhost").expect("an address");
    let connection = connecting.await.expect("a handshake");
    let digest = offer.digest;
    let hello = ControlMessage::Hello {
        name: "bench".into(),
        modules: vec![offer],
    };
    let mut control = connection.open_uni().await.expect("a control stream");
    control
        .write_all(&hello.encode().expect("a hello"))
        .await
        .expect("the relay reads");
    // The stream must stay open as long as the connection.
    tokio::spawn(async move {
        let _open = control;
        std::future::pending::<()>().await;
    });
    // The relay has the module, and serves it once it has read that this agent may use it.
    eventually("a module that is ready", async || {
        over_quic(&connection, digest).await.ok()
    })
    .await;
    (endpoint, connection)
}

async fn over_quic(connection: &quinn::Connection, module: Digest) -> Result<Answer, Failure> {
    let message = RequestMessage {
        module,
        time_left: Duration::from_secs(10),
        priority: Priority::Normal,
        outputs: Vec::new(),
        inputs: vec![input()],
    };
    let encoded = message.encode().expect("within the limits");
    let mut chunks = vec![encoded.head];
    chunks.extend(encoded.payload);
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    send.write_all_chunks(&mut chunks)
        .await
        .expect("the relay reads");
    send.finish().expect("the stream is open");
    let reply = receive.read_to_end(1 << 20).await.expect("a reply");
    let (prefix, rest) = reply.split_first_chunk::<PREFIX_BYTES>().expect("a prefix");
    let header_len = Prefix::decode(prefix)
        .and_then(|prefix| prefix.expect(Kind::Reply))
        .expect("a reply");
    let (header, payload) = rest.split_at(header_len);
    let reply = ReplyHeader::decode(header)
        .and_then(|header| header.with_payload(Bytes::copy_from_slice(payload)))
        .expect("a reply");
    reply.result
}

criterion_group!(benches, bench);
criterion_main!(benches);
