//! Open-loop load: each request leaves at its own time, whatever became of those before it.
//!
//! Latency counts from the scheduled arrival to the last byte of the reply, so a server that stalls
//! is charged for every request that it made wait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::Value;
use tidegate_inference::{NamedTensor, Tensor};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::http::{Client, Response, ServerUrl};
use crate::infer::protocol;

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

#[derive(Debug)]
struct Request {
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// Sends requests for one model to one agent.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    client: Client,
    /// Ready-made requests, used in turn.
    requests: Arc<[Request]>,
}

impl Sender {
    /// A sender of `images`, in turn, to the model `face` of the agent at `url`.
    pub(super) fn new(url: ServerUrl, images: &[&[u8]]) -> Self {
        Self {
            client: Client::new(url, LOST_AFTER, REPLY_BYTES_MAX),
            requests: images.iter().map(|image| request(image)).collect(),
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
        let Request { headers, body } = &self.requests[index % self.requests.len()];
        match self
            .client
            .post("/v2/models/face/infer", headers, body.clone())
            .await
        {
            Ok(reply) if reply.status == StatusCode::OK => placement(&reply),
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

/// Asks for the faces in `image`.
fn request(image: &[u8]) -> Request {
    let (headers, body) = protocol::write_request(&[NamedTensor {
        name: "image".to_owned(),
        tensor: Tensor::from_byte_elements(&[image]),
    }]);
    Request { headers, body }
}

fn placement(reply: &Response) -> Outcome {
    let Ok(answer) = protocol::read_reply(reply) else {
        return Outcome::Lost;
    };
    let placement = answer.parameters.get("tidegate_placement");
    match placement.and_then(Value::as_str) {
        Some("relay") => Outcome::Relay,
        Some(_) => Outcome::Local,
        None => Outcome::Lost,
    }
}
