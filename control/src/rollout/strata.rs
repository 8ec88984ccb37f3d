//! Which requests the version with the smaller share serves: one of each stratum, at a random place.
//!
//! The requests are cut into strata of 1 / share each, and one of each goes to the version that has
//! the share. Its place is pseudo-random: a fixed step would always hit the same client where clients
//! take turns. The strata bound the share, which independent draws would not; and they keep the
//! comparison sound, as `evidence` says.

/// What a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The version with the share serves it.
    Share,
    /// The other one does.
    Rest,
}

/// Hands out the parts, in order.
#[derive(Clone, Debug)]
pub(super) struct Strata {
    share: f64,
    seed: u64,
    /// Requests so far.
    request: u64,
    /// The stratum whose request of the share is due.
    due: u64,
    /// The stratum of the last request, a whole number.
    stratum: f64,
    has_turned: bool,
}

impl Strata {
    pub(super) fn new(share: f64, seed: u64) -> Self {
        Self {
            share,
            seed,
            request: 0,
            due: 0,
            stratum: 0.0,
            has_turned: false,
        }
    }

    pub(super) fn draw(&mut self) -> Part {
        let request = self.request as f64;
        self.request += 1;
        let stratum = (request * self.share).floor();
        if stratum > self.stratum {
            self.stratum = stratum;
            self.has_turned = true;
        }
        let place = (self.due as f64 + uniform(self.seed, self.due)) / self.share;
        // Of two places in one request, which strata of no whole length can have, the second moves on.
        if request >= place.floor() {
            self.due += 1;
            return Part::Share;
        }
        Part::Rest
    }

    /// Whether a stratum has ended since this was asked.
    pub(super) fn has_turned(&mut self) -> bool {
        std::mem::take(&mut self.has_turned)
    }
}

/// A hash of both numbers, uniform in [0, 1): SplitMix64 (Steele, Lea, Flood 2014).
fn uniform(seed: u64, number: u64) -> f64 {
    let mut mixed = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    // The upper 53 bits are what a double holds exactly.
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}
