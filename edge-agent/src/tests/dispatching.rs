//! What happens to a request behind the front.

use std::time::{Duration, Instant};

use tidegate_control::RelayId;
use tidegate_inference::{FailureKind, Placement, Priority, Reason, Request};
use tidegate_open_inference::Infer;

use super::power::{self, SLOW_ROWS};
use super::running;
use crate::dispatch::Place;

fn request(rows: usize) -> Request {
    Request {
        id: None,
        model: "power".to_owned(),
        version: None,
        inputs: vec![power::input(rows)],
        outputs: Vec::new(),
        priority: Priority::Normal,
        deadline: Some(Instant::now() + Duration::from_secs(60)),
    }
}

#[tokio::test]
async fn a_job_that_no_relay_takes_runs_here() {
    let running = running("").await;
    let service = &running.agent.service;
    let job = service.accept(request(2)).unwrap();
    let gone = Place::Relay(RelayId(7));
    let reply = service.place(&job, gone, Reason::Forecast).await.unwrap();
    assert_eq!(reply.placement, Placement::Local);
    assert_eq!(reply.reason, Reason::Retry);
}

#[tokio::test]
async fn a_job_that_finds_no_place_fails_once_all_were_tried() {
    let running = running("queue-len-max = 1\n").await;
    let service = &running.agent.service;
    let slow = service.accept(request(SLOW_ROWS)).unwrap();
    let waiting = service.accept(request(SLOW_ROWS)).unwrap();
    let job = service.accept(request(2)).unwrap();
    let place = |job, place| service.place(job, place, Reason::Capacity);
    let failure = tokio::select! {
        biased;
        _ = async { tokio::join!(place(&slow, Place::Here), place(&waiting, Place::Here)) } => {
            panic!("the slow jobs end after the refusal")
        }
        result = async {
            running.loaded(1, 1).await;
            place(&job, Place::Relay(RelayId(7))).await
        } => result.unwrap_err(),
    };
    assert_eq!(failure.kind, FailureKind::Overloaded);
    assert!(failure.retry_after.is_some());
}

#[tokio::test]
async fn a_deadline_ends_a_run_under_way() {
    let running = running("").await;
    let service = &running.agent.service;
    let mut late = request(SLOW_ROWS);
    late.deadline = Some(Instant::now() + Duration::from_millis(50));
    let failure = service.infer(late).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
    running.loaded(0, 0).await;
    let mut past = request(2);
    past.deadline = Some(Instant::now());
    let failure = service.infer(past).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused_and_places_come_back() {
    let running = running("requests-max = 1\n").await;
    let service = &running.agent.service;
    let failure = {
        let slow = service.infer(request(SLOW_ROWS));
        tokio::select! {
            biased;
            _ = slow => panic!("the slow job ends after the refusal"),
            result = async {
                running.loaded(1, 0).await;
                service.infer(request(2)).await
            } => result.unwrap_err(),
        }
    };
    assert_eq!(failure.kind, FailureKind::Overloaded);
    assert!(service.infer(request(2)).await.is_ok());
    service.admission.drain();
    assert!(!service.is_ready());
    let failure = service.infer(request(2)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unavailable);
}

#[tokio::test]
async fn only_the_outputs_asked_for_come_back() {
    let running = running("").await;
    let service = &running.agent.service;
    let mut asked = request(2);
    asked.outputs = vec!["y".to_owned()];
    assert_eq!(service.infer(asked).await.unwrap().outputs.len(), 1);
    let mut unknown = request(2);
    unknown.outputs = vec!["z".to_owned()];
    let failure = service.infer(unknown).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(failure.message.contains("\"z\""), "{failure}");
}
