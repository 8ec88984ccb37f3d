//! The two control streams of a connection.
//!
//! A connection with requests in flight gets a load report every [`REPORT_EVERY`], changed or not: it
//! is also how an agent notices that a relay is dead. A quiet one gets a report when the load changes,
//! and every [`REPORT_QUIET_EVERY`].

use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tidegate_inference::Digest;
use tidegate_wire::ControlMessage;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::connection::{End, Peer};
use super::frame;

/// How often the load is looked at.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How often an unchanged load is reported to an agent without requests.
const REPORT_QUIET_EVERY: Duration = Duration::from_secs(1);

/// Control messages that an agent may send in one go, and each second: ten times what it has reason
/// to, which is a reservation every 250 ms.
const MESSAGES_AT_ONCE_MAX: f64 = 100.0;
const MESSAGES_PER_S_MAX: f64 = 40.0;

/// Takes what the agent says after its hello.
pub(super) async fn listen(peer: &Peer, mut recv: RecvStream) -> End {
    let mut allowance = Allowance::new(Instant::now());
    loop {
        let message = match frame::control(&mut recv, peer.terms.stall).await {
            Ok(message) => message,
            Err(error) => return error.into(),
        };
        let now = Instant::now();
        if allowance.spend(now) == Spent::TooMuch {
            return End::Flood;
        }
        match message {
            // How sure an agent is of its need changes nothing here.
            ControlMessage::Reservation { slots, horizon, .. } => {
                let reservations = &peer.service.reservations;
                reservations.set(peer.id, slots, horizon, now.into_std());
            }
            ControlMessage::GoAway { reason } => {
                tracing::info!(reason, "an agent sends no more requests");
                peer.service.reservations.remove(peer.id);
            }
            ControlMessage::Hello { .. } => return End::Violation("a second hello"),
            ControlMessage::Load(_) => return End::Violation("an agent's load"),
            ControlMessage::ModuleReady { .. } => return End::Violation("an agent's module-ready"),
            ControlMessage::Credits { .. } => return End::Violation("an agent's credits"),
            ControlMessage::ModuleWanted { .. } | ControlMessage::ModuleOffered { .. } => {
                return End::Violation("a module on the control stream");
            }
        }
    }
}

/// Greets the agent, then tells it the load, which modules became ready, and when to go.
pub(super) async fn report(
    peer: &Peer,
    send: SendStream,
    hello: ControlMessage,
    mut now_ready: mpsc::Receiver<Digest>,
) -> End {
    let mut out = Out(send);
    let mut said = peer.service.load();
    let in_flight_max = peer.terms.requests_max;
    for message in [
        hello,
        ControlMessage::Credits { in_flight_max },
        ControlMessage::Load(said.clone()),
    ] {
        if let Err(end) = out.write(&message).await {
            return end;
        }
    }
    let mut said_at = Instant::now();
    let mut ticks = interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let draining = &peer.service.draining;
    loop {
        let written = tokio::select! {
            Some(digest) = now_ready.recv() => {
                out.write(&ControlMessage::ModuleReady { digest }).await
            }
            () = draining.cancelled(), if !said.draining => {
                said = peer.service.load();
                let reason = "the relay is stopping".to_owned();
                match out.write(&ControlMessage::Load(said.clone())).await {
                    Ok(()) => out.write(&ControlMessage::GoAway { reason }).await,
                    error => error,
                }
            }
            now = ticks.tick() => {
                let load = peer.service.load();
                let due = peer.in_flight() > 0
                    || load != said
                    || now.duration_since(said_at) >= REPORT_QUIET_EVERY;
                // The drain has a branch of its own, which also says to go away.
                if !due || load.draining != said.draining {
                    continue;
                }
                said = load;
                said_at = now;
                out.write(&ControlMessage::Load(said.clone())).await
            }
        };
        if let Err(end) = written {
            return end;
        }
    }
}

struct Out(SendStream);

impl Out {
    async fn write(&mut self, message: &ControlMessage) -> Result<(), End> {
        let frame = message.encode().map_err(End::Encode)?;
        Ok(self.0.write_chunk(frame).await?)
    }
}

/// A token bucket.
struct Allowance {
    left: f64,
    since: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Spent {
    Within,
    TooMuch,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            left: MESSAGES_AT_ONCE_MAX,
            since: now,
        }
    }

    fn spend(&mut self, now: Instant) -> Spent {
        let earned = now.duration_since(self.since).as_secs_f64() * MESSAGES_PER_S_MAX;
        self.left = (self.left + earned).min(MESSAGES_AT_ONCE_MAX);
        self.since = now;
        if self.left < 1.0 {
            return Spent::TooMuch;
        }
        self.left -= 1.0;
        Spent::Within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_talk_at_its_rate_for_ever_but_not_faster() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut now = start;
        for _ in 0..1000 {
            now += Duration::from_millis(250);
            assert_eq!(allowance.spend(now), Spent::Within);
        }
        now += Duration::from_secs(1000);
        let at_once = (0..)
            .take_while(|_| allowance.spend(now) == Spent::Within)
            .count();
        assert_eq!(at_once, 100);
        now += Duration::from_millis(25);
        assert_eq!(allowance.spend(now), Spent::Within);
        assert_eq!(allowance.spend(now), Spent::TooMuch);
    }
}
