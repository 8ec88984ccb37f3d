//! Where one request goes, from predicted sojourns alone.

use tidegate_inference::Reason;

use crate::RelayId;
use crate::balance::Candidate;

/// Everything that the choice depends on. Times in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Predicted sojourn on this device.
    pub(crate) local_s: f64,
    /// The relay at hand, if there is one and policy allows it.
    pub(crate) remote: Option<Candidate>,
    /// Time left to the deadline.
    pub(crate) left_s: f64,
    /// A sojourn that leaves room for error.
    pub(crate) comfortable_s: f64,
    /// Whether this request is of the share to send away.
    pub(crate) excess: bool,
    /// Whether the model's service time is measured: nothing is refused on a prior.
    pub(crate) known: bool,
}

/// Where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Local(Reason),
    Burst(RelayId, Reason),
    Shed,
}

/// The rule: excess to a comfortable relay; else local while comfortable; else a comfortable relay;
/// else whichever is sooner, if it is in time; else nowhere.
pub(crate) fn place(options: &Options) -> Choice {
    let Options {
        local_s,
        remote,
        left_s,
        comfortable_s,
        excess,
        known,
    } = *options;
    let comfortable = remote.filter(|candidate| candidate.sojourn_s <= comfortable_s);
    if let Some(candidate) = comfortable.filter(|_| excess) {
        return Choice::Burst(candidate.relay, Reason::Forecast);
    }
    if local_s <= comfortable_s {
        return Choice::Local(Reason::Capacity);
    }
    if let Some(candidate) = comfortable {
        return Choice::Burst(candidate.relay, Reason::Deadline);
    }
    let sooner = remote.filter(|candidate| candidate.sojourn_s < local_s);
    match sooner {
        Some(candidate) if candidate.sojourn_s <= left_s => {
            Choice::Burst(candidate.relay, Reason::Deadline)
        }
        Some(_) | None if local_s <= left_s || !known => Choice::Local(Reason::NoRelay),
        Some(_) | None => Choice::Shed,
    }
}

/// Picks a share of the arrivals by carrying the remainder over, which spreads them evenly; drawing
/// lots would leave runs in the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thinning {
    owed: f64,
}

/// Requests that may be owed at most: what idle moments kept here is not all sent away later.
const OWED_MAX: f64 = 2.0;

impl Thinning {
    /// Counts an arrival, of which `share` in [0, 1] is to go. True if one is owed.
    pub(crate) fn arrived(&mut self, share: f64) -> bool {
        self.owed = if share > 0.0 {
            (self.owed + share).min(OWED_MAX)
        } else {
            0.0
        };
        self.owed >= 1.0
    }

    /// One went.
    pub(crate) fn sent(&mut self) {
        self.owed = (self.owed - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: RelayId = RelayId(3);

    #[track_caller]
    fn check(local_ms: f64, remote_ms: Option<f64>, excess: bool, known: bool, expected: Choice) {
        let remote = remote_ms.map(|ms| Candidate {
            relay: RELAY,
            sojourn_s: ms / 1e3,
        });
        let options = Options {
            local_s: local_ms / 1e3,
            remote,
            left_s: 0.1,
            comfortable_s: 0.07,
            excess,
            known,
        };
        assert_eq!(place(&options), expected);
    }

    #[test]
    fn a_request_goes_where_its_deadline_is_met() {
        use Choice::{Burst, Local, Shed};
        check(10.0, None, false, true, Local(Reason::Capacity));
        check(10.0, Some(5.0), false, true, Local(Reason::Capacity));
        check(10.0, Some(50.0), true, true, Burst(RELAY, Reason::Forecast));
        check(10.0, Some(80.0), true, true, Local(Reason::Capacity));
        check(
            80.0,
            Some(50.0),
            false,
            true,
            Burst(RELAY, Reason::Deadline),
        );
        check(80.0, Some(90.0), false, true, Local(Reason::NoRelay));
        check(
            95.0,
            Some(90.0),
            false,
            true,
            Burst(RELAY, Reason::Deadline),
        );
        check(
            120.0,
            Some(90.0),
            false,
            true,
            Burst(RELAY, Reason::Deadline),
        );
        check(90.0, None, true, true, Local(Reason::NoRelay));
        check(120.0, Some(110.0), true, true, Shed);
        check(120.0, None, false, true, Shed);
        check(120.0, Some(110.0), false, false, Local(Reason::NoRelay));
    }

    #[test]
    fn thinning_sends_exactly_the_share() {
        for (share, expected) in [(0.0, 0), (0.25, 250), (0.5, 500), (1.0, 1000)] {
            let mut thinning = Thinning::default();
            let mut sent = 0;
            for _ in 0..1000 {
                if thinning.arrived(share) {
                    thinning.sent();
                    sent += 1;
                }
            }
            assert_eq!(sent, expected, "{share}");
        }
    }
}
