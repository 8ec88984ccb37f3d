//! Dice for waits that must not fall in step. Never for secrets.

use std::hash::{BuildHasher, RandomState};

/// A random number, uniform in [0, 1).
pub(crate) fn uniform() -> f64 {
    let [high, low, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    f64::from(u16::from_ne_bytes([high, low])) / 65_536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dice_stay_in_their_range() {
        assert!((0..64).all(|_| (0.0..1.0).contains(&uniform())));
    }
}
