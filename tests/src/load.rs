//! Requests at a fixed rate, whether or not the earlier ones are answered.
//!
//! Arrivals do not wait for answers, as those of many independent clients do not: a server that
//! slows down meets a longer queue, not fewer requests.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use crate::http::{Answer, Http};
use crate::models::echo_request;

static TURN: Mutex<()> = Mutex::const_new(());

/// Waits until no other test of this program offers load: two at a time would measure each other.
pub async fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().await
}

/// One request and what became of it.
#[derive(Debug)]
pub struct Offered {
    /// Its number, which is also its id and its input.
    pub number: usize,
    /// The answer, if there was one.
    pub answer: Result<Answer>,
    /// From the time it was due until its answer.
    pub took: Duration,
}

/// Sends `count` requests to an echoing model, `every` so often, and waits for all answers.
pub async fn offer(http: Http, model: &'static str, count: usize, every: Duration) -> Vec<Offered> {
    let mut due = interval_at(Instant::now(), every);
    let mut under_way = JoinSet::new();
    for number in 0..count {
        let at = due.tick().await;
        under_way.spawn(ask(http.clone(), model, number, at));
    }
    under_way.join_all().await
}

/// Load that goes on beside the test until it is ended. Dropping it cuts it off.
#[derive(Debug)]
pub struct Load {
    end: oneshot::Sender<()>,
    offering: JoinSet<Vec<Offered>>,
}

impl Load {
    /// Begins to send requests to an echoing model, `every` so often.
    #[must_use]
    pub fn begin(http: &Http, model: &'static str, every: Duration) -> Self {
        let http = http.clone();
        let (end, mut ended) = oneshot::channel();
        let mut offering = JoinSet::new();
        offering.spawn(async move {
            let mut due = interval_at(Instant::now(), every);
            let mut under_way = JoinSet::new();
            for number in 0.. {
                tokio::select! {
                    _ = &mut ended => break,
                    at = due.tick() => {
                        under_way.spawn(ask(http.clone(), model, number, at));
                    }
                }
            }
            under_way.join_all().await
        });
        Self { end, offering }
    }

    /// Sends no more, and waits for all answers; they are in the order of the requests.
    pub async fn end(mut self) -> Vec<Offered> {
        drop(self.end);
        let offered = self.offering.join_next().await.expect("the one task");
        let mut offered = offered.expect("offering does not panic");
        offered.sort_by_key(|offered| offered.number);
        offered
    }
}

async fn ask(http: Http, model: &str, number: usize, at: Instant) -> Offered {
    let value = i32::try_from(number).expect("a test sends few requests");
    let answer = http
        .infer(model, &echo_request(&number.to_string(), value))
        .await;
    let took = at.elapsed();
    Offered {
        number,
        answer,
        took,
    }
}

/// Where a successful answer says that it ran.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ran {
    /// On the agent.
    Local,
    /// On the relay of this name.
    Relay(String),
}

impl Offered {
    /// The version that answered, and with the right outputs; anything else fails.
    #[must_use]
    #[track_caller]
    pub fn version(&self) -> String {
        let number = self.number;
        assert!(self.ran().is_some(), "request {number}: {:?}", self.answer);
        let json = self.answer.as_ref().map(Answer::json);
        let json = json.expect("an answer that ran");
        let version = json["model_version"].as_str();
        version.expect("an answer has a version").to_owned()
    }

    /// Where it ran, if it was answered with its own id and input; `None` if it was refused as the
    /// protocol refuses what does not fit: 503 with `Retry-After`, or 504. Anything else fails.
    #[must_use]
    #[track_caller]
    pub fn ran(&self) -> Option<Ran> {
        let number = self.number;
        let answer = self.answer.as_ref();
        let answer = answer.unwrap_or_else(|error| panic!("request {number}: {error:#}"));
        match answer.status.as_u16() {
            200 => {}
            503 => {
                let wait = answer
                    .header("retry-after")
                    .and_then(|wait| wait.parse().ok());
                assert!(
                    wait.is_some_and(|wait: u64| wait >= 1),
                    "request {number}: {answer:?}"
                );
                return None;
            }
            504 => return None,
            _ => panic!("request {number}: {answer:?}"),
        }
        let json = answer.json();
        assert_eq!(
            json["id"],
            number.to_string(),
            "an answer to another request"
        );
        assert_eq!(
            json["outputs"][0]["data"][0], number,
            "another request's outputs"
        );
        let parameters = &json["parameters"];
        match (
            parameters["tidegate_placement"].as_str(),
            parameters["tidegate_relay"].as_str(),
        ) {
            (Some("local"), None) => Some(Ran::Local),
            (Some("relay"), Some(name)) => Some(Ran::Relay(name.to_owned())),
            _ => panic!("request {number} ran nowhere: {json}"),
        }
    }
}
