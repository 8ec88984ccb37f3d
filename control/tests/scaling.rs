//! A fleet grows at once, shrinks late, and never on a forecast alone.

use proptest::prelude::*;
use tidegate_control::scale::{Demand, ScalePolicy, Scaler};
use tidegate_control::{TICK, Time};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_fleet_stays_in_bounds_and_shrinks_only_after_the_dwell(
        demands in prop::collection::vec((0.0..20.0_f64, prop_oneof![0.0..20.0_f64, Just(f64::NAN), Just(f64::INFINITY)]), 1..200),
        min in 0..3_usize,
        above in 0..10_usize,
    ) {
        let policy = ScalePolicy::new(min, min + above, 2);
        let mut scaler = Scaler::new(policy);
        let (mut now, mut current, mut grown) = (Time::default(), min, Time::default());
        for (in_flight, reserved) in demands {
            now.0 += TICK;
            let wanted = scaler.desired(now, Demand { in_flight, reserved }, current);
            prop_assert!((min..=min + above).contains(&wanted));
            if wanted < current {
                prop_assert!(now.0 - grown.0 >= policy.dwell);
            }
            if wanted > current {
                grown = now;
            }
            current = wanted;
        }
    }
}

#[test]
fn observed_demand_alone_keeps_a_fleet_up() {
    let mut scaler = Scaler::new(ScalePolicy::new(0, 8, 1));
    let mut now = Time::default();
    for _ in 0..400 {
        now.0 += TICK;
        // The forecast says that nothing comes; three requests are there at all times.
        let wanted = scaler.desired(
            now,
            Demand {
                in_flight: 3.0,
                reserved: 0.0,
            },
            5,
        );
        assert_eq!(wanted, 5);
    }
}
