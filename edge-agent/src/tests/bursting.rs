//! The agent with a real relay on loopback, and with one that dies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_cloud_relay::{Config, Relay};
use tidegate_control::{Outcome, RelayId, Route};
use tidegate_inference::{Placement, Priority, Reason, Reply, Request};
use tokio::net::UdpSocket;

use super::power::{self, DIAGONAL, SLOW_ROWS};
use super::{Running, running, until};
use crate::brain::Question;
use crate::dispatch::{Job, Place, Service};

const ANY_PORT: &str = "127.0.0.1:0";

/// An agent of one slot and one waiting place, and a relay that can run its model.
struct Site {
    running: Running,
    relay: Relay,
    relay_id: RelayId,
    /// Set to swallow everything between the two.
    dead: Arc<AtomicBool>,
}

impl Site {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        tidegate_identity::make_dev_certs(folder.path()).unwrap();
        let text = format!(
            "listen = '{ANY_PORT}'\nname = 'cloud'\nslots = 1\nstate-dir = 'cloud'\ntrust.allow-unsigned = true\n\
             certificate = 'relay.pem'\nkey = 'relay.key'\nca = 'ca.pem'\n"
        );
        let config = Config {
            vetting: None,
            tract_guest: None,
            ..Config::parse(&text, &folder.path().join("relay.toml")).unwrap()
        };
        let relay = tidegate_cloud_relay::start(config).await.unwrap();
        let dead = Arc::new(AtomicBool::new(false));
        let address = path(relay.local_addr(), Arc::clone(&dead)).await;
        let pki = folder.path().display();
        let running = running(&format!(
            "queue-len-max = 1\nslo-ms = 60000\n[burst]\nrelays = ['{address}']\n\
             certificate = '{pki}/agent.pem'\nkey = '{pki}/agent.key'\nca = '{pki}/ca.pem'\n"
        ))
        .await;
        let relay_id = ready(&running.agent.service).await;
        Self {
            running,
            relay,
            relay_id,
            dead,
        }
    }

    fn job(&self, rows: usize, time: Duration) -> Job {
        let request = Request {
            id: None,
            model: "power".to_owned(),
            version: None,
            inputs: vec![power::input(rows)],
            outputs: Vec::new(),
            priority: Priority::Normal,
            deadline: Some(Instant::now() + time),
        };
        self.running.agent.service.accept(request).unwrap()
    }
}

/// Waits until the controller would send a request to a relay.
async fn ready(service: &Service) -> RelayId {
    let (served, _) = service.models.find("power", None).unwrap();
    let question = Question {
        model: served.index,
        time_left: Duration::from_secs(60),
        bytes: 16,
        backlog: 1 << 24,
    };
    let found = std::cell::Cell::new(None);
    until(|| {
        if let Route::Burst(relay, _) = service.brain.route_again(question) {
            service.brain.finished(&Outcome::RelayDropped { relay });
            found.set(Some(relay));
        }
        found.get().is_some()
    })
    .await;
    found.get().unwrap()
}

/// Forwards datagrams between one agent and `to` until `dead` is set.
async fn path(to: SocketAddr, dead: Arc<AtomicBool>) -> SocketAddr {
    let near = UdpSocket::bind(ANY_PORT).await.unwrap();
    let far = UdpSocket::bind(ANY_PORT).await.unwrap();
    far.connect(to).await.unwrap();
    let address = near.local_addr().unwrap();
    tokio::spawn(async move {
        let mut agent = None;
        let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                Ok((len, from)) = near.recv_from(&mut out) => {
                    agent = Some(from);
                    if !dead.load(Ordering::Relaxed) {
                        drop(far.send(&out[..len]).await);
                    }
                }
                Ok(len) = far.recv(&mut back) => {
                    if let (Some(agent), false) = (agent, dead.load(Ordering::Relaxed)) {
                        drop(near.send_to(&back[..len], agent).await);
                    }
                }
            }
        }
    });
    address
}

fn first(reply: &Reply) -> f32 {
    let (cells, _) = reply.outputs[0].tensor.data().as_chunks::<4>();
    f32::from_le_bytes(cells[0])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_queue_does_not_take_runs_on_a_relay() {
    let site = Site::new().await;
    let service = &site.running.agent.service;
    let long = Duration::from_secs(60);
    let (slow, waiting) = (site.job(SLOW_ROWS, long), site.job(SLOW_ROWS, long));
    let job = site.job(2, long);
    let here = |job| service.place(job, Place::Here, Reason::Capacity);
    let reply = tokio::select! {
        biased;
        _ = async { tokio::join!(here(&slow), here(&waiting)) } => panic!("the slow jobs end later"),
        reply = async {
            site.running.loaded(1, 1).await;
            here(&job).await.unwrap()
        } => reply,
    };
    assert_eq!(reply.placement, Placement::Relay("cloud".to_owned()));
    assert_eq!(reply.reason, Reason::Retry);
    assert_eq!(first(&reply), DIAGONAL);
    let page = service.metrics.encode(service.slots.load());
    assert!(page.contains("tidegate_relays_connected 1\n"), "{page}");
    assert!(page.contains("tidegate_burst_in_flight 0\n"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_outlives_its_relay() {
    let Site {
        running,
        relay,
        relay_id,
        dead: _,
    } = Site::new().await;
    let service = Arc::clone(&running.agent.service);
    let site_job = |rows| Request {
        id: None,
        model: "power".to_owned(),
        version: None,
        inputs: vec![power::input(rows)],
        outputs: Vec::new(),
        priority: Priority::Normal,
        deadline: None,
    };
    let job = service.accept(site_job(SLOW_ROWS)).unwrap();
    let placed = service.place(&job, Place::Relay(relay_id), Reason::Forecast);
    let kill = async {
        let in_flight = || service.metrics.encode(service.slots.load());
        until(|| in_flight().contains("tidegate_burst_in_flight 1\n")).await;
        drop(relay);
    };
    let (reply, ()) = tokio::join!(placed, kill);
    let reply = reply.unwrap();
    assert_eq!(
        (reply.placement.clone(), reply.reason),
        (Placement::Local, Reason::Retry)
    );
    assert_eq!(first(&reply), DIAGONAL);
    drop(service);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_outlives_a_path_that_goes_dead() {
    // The short deadline leaves no time to notice that the link is gone, the long one does.
    for time in [Duration::from_millis(600), Duration::from_secs(60)] {
        let site = Site::new().await;
        let service = &site.running.agent.service;
        site.dead.store(true, Ordering::Relaxed);
        let job = site.job(2, time);
        let place = Place::Relay(site.relay_id);
        let reply = service.place(&job, place, Reason::Forecast).await.unwrap();
        assert_eq!(
            (reply.placement.clone(), reply.reason),
            (Placement::Local, Reason::Retry)
        );
        assert_eq!(first(&reply), DIAGONAL);
        drop(site.relay);
    }
}
