//! Open-loop load: each request leaves at its own time, whatever became of those before it.
//!
//! Latency counts from the scheduled arrival to the last byte of the reply, so a server that stalls
//! is charged for every request that it made wait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::StatusCode;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::http::{Client, ServerUrl};

/// How long a request may go unanswered before it counts as lost.
const LOST_AFTER: Duration = Duration::from_secs(15);

/// Most bytes of a reply that are read: a face reply has a few hundred.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// What an agent answers when it turns a request away.
const REFUSED: [StatusCode; 2] = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// How one request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Answered by the agent's own device.
    Local,
    /// Answered by a relay.
    Relay,
    /// Turned away with 503 or 504.
    Refused,
    /// Anything else: another status, a broken connection, no reply in time.
    Lost,
}

/// One request, as its sender saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// Scheduled arrival, after the start of the run.
    pub(super) arrival: Duration,
    /// From the scheduled arrival to the whole reply.
    pub(super) latency: Duration,
    /// How it ended.
    pub(super) outcome: Outcome,
}

/// What the run has seen so far; the view reads it while the load goes on.
pub(super) type Records = Arc<Mutex<Vec<Record>>>;

/// Sends requests for one model to one agent.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    client: Client,
    /// Ready-made bodies, used in turn, each with the length of its JSON part.
    bodies: Arc<[(Bytes, usize)]>,
}

impl Sender {
    /// A sender of `images`, in turn, to the model `face` of the agent at `url`.
    pub(super) fn new(url: ServerUrl, images: &[&[u8]]) -> Self {
        Self {
            client: Client::new(url, LOST_AFTER, REPLY_BYTES_MAX),
            bodies: images.iter().map(|image| body(image)).collect(),
        }
    }

    /// Sends the request of number `index`; `arrival` is when it was due, `start` the run's origin.
    pub(super) async fn send(&self, index: usize, start: Instant, arrival: Duration) -> Record {
        let outcome = self.exchange(index).await;
        Record {
            arrival,
            latency: (start + arrival).elapsed(),
            outcome,
        }
    }

    async fn exchange(&self, index: usize) -> Outcome {
        let (body, json_len) = &self.bodies[index % self.bodies.len()];
        let headers = [
            ("content-type", "application/octet-stream".to_owned()),
            ("inference-header-content-length", json_len.to_string()),
        ];
        match self
            .client
            .post("/v2/models/face/infer", &headers, body.clone())
            .await
        {
            Ok(reply) if reply.status == StatusCode::OK => placement(&reply.body),
            Ok(reply) if REFUSED.contains(&reply.status) => Outcome::Refused,
            Ok(_) | Err(_) => Outcome::Lost,
        }
    }
}

/// Sends one request at each of `arrivals` and waits for the last reply.
pub(super) async fn replay(sender: &Sender, arrivals: &[Duration], records: &Records) {
    let start = Instant::now();
    let mut requests = JoinSet::new();
    for (index, arrival) in arrivals.iter().copied().enumerate() {
        tokio::time::sleep_until(start + arrival).await;
        let (sender, records) = (sender.clone(), Arc::clone(records));
        requests.spawn(async move {
            let record = sender.send(index, start, arrival).await;
            records
                .lock()
                .expect("no thread panics with the records")
                .push(record);
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

/// A request body of the binary tensor extension, and the length of its JSON part.
fn body(image: &[u8]) -> (Bytes, usize) {
    let element = u32::try_from(image.len()).expect("an image is below 4 GiB");
    let json = serde_json::json!({
        "inputs": [{
            "name": "image",
            "datatype": "BYTES",
            "shape": [1],
            "parameters": { "binary_data_size": image.len() + 4 },
        }],
    })
    .to_string();
    let mut body = BytesMut::with_capacity(json.len() + 4 + image.len());
    body.put_slice(json.as_bytes());
    body.put_u32_le(element);
    body.put_slice(image);
    (body.freeze(), json.len())
}

fn placement(reply: &[u8]) -> Outcome {
    #[derive(Deserialize)]
    struct Reply {
        parameters: Parameters,
    }
    #[derive(Deserialize)]
    struct Parameters {
        tidegate_placement: String,
    }
    match serde_json::from_slice::<Reply>(reply) {
        Ok(reply) if reply.parameters.tidegate_placement == "relay" => Outcome::Relay,
        Ok(_) => Outcome::Local,
        Err(_) => Outcome::Lost,
    }
}
