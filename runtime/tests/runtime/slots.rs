//! Slots: order, bounds, deadlines, and what dropping does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_inference::{FailureKind, Priority};
use tidegate_runtime::{
    Completed, Denied, Model, Running, Runtime, RuntimeConfig, SlotLoad, Slots,
};

use crate::fixture::{AMPLE, ECHO, floats, guest, identity, load, module, packed, runtime};

fn submit(slots: &Slots, model: &Arc<Model>, priority: Priority) -> Result<Running, Denied> {
    let inputs = vec![floats("x", &[2], &[1.0, 2.0])];
    slots.submit(Arc::clone(model), inputs, priority, Instant::now() + AMPLE)
}

fn looping(runtime: &Runtime) -> Arc<Model> {
    let body = "(loop $forever (br $forever)) unreachable";
    load(runtime, &module(&guest("", "", body)))
}

/// Waits for a state that other threads bring about.
async fn until(slots: &Slots, wanted: SlotLoad) {
    let started = Instant::now();
    while slots.load() != wanted {
        assert!(
            started.elapsed() < AMPLE,
            "{:?} is not {wanted:?}",
            slots.load()
        );
        tokio::task::yield_now().await;
    }
}

fn load_of(busy: usize, queued: usize) -> SlotLoad {
    let slots = 1;
    SlotLoad {
        slots,
        busy,
        queued,
    }
}

#[tokio::test]
async fn a_job_completes_and_is_measured() {
    let runtime = runtime();
    let model = load(&runtime, &packed(&identity()));
    let slots = Slots::new(2, 4).unwrap();
    let completed = submit(&slots, &model, Priority::Normal)
        .unwrap()
        .await
        .unwrap();
    let Completed {
        outputs,
        service,
        cpu,
        ..
    } = completed;
    assert_eq!(outputs[0].name, "y");
    assert!(service > Duration::ZERO && cpu > Duration::ZERO);
    assert_eq!(slots.load().busy, 0);
}

#[tokio::test]
async fn the_queue_is_bounded_and_a_dropped_job_frees_its_place() {
    let runtime = runtime();
    let (looping, good) = (looping(&runtime), load(&runtime, &packed(&identity())));
    let slots = Slots::new(1, 2).unwrap();
    let busy = submit(&slots, &looping, Priority::Normal).unwrap();
    until(&slots, load_of(1, 0)).await;
    let first = submit(&slots, &good, Priority::Normal).unwrap();
    let second = submit(&slots, &good, Priority::Normal).unwrap();
    assert_eq!(
        submit(&slots, &good, Priority::High).unwrap_err(),
        Denied::QueueFull
    );
    drop(first);
    assert_eq!(slots.load(), load_of(1, 1));
    let third = submit(&slots, &good, Priority::Normal).unwrap();
    drop(busy);
    second.await.unwrap();
    third.await.unwrap();
    until(&slots, load_of(0, 0)).await;
}

#[tokio::test]
async fn high_priority_goes_first() {
    let runtime = runtime();
    let (looping, good) = (looping(&runtime), load(&runtime, &packed(&identity())));
    let slots = Slots::new(1, 8).unwrap();
    let busy = submit(&slots, &looping, Priority::Normal).unwrap();
    until(&slots, load_of(1, 0)).await;
    let mut waiting: Vec<_> = [Priority::Low, Priority::Normal, Priority::High]
        .map(|priority| (priority, submit(&slots, &good, priority).unwrap()))
        .into();
    drop(busy);
    let mut queued = Vec::new();
    for (priority, running) in waiting.drain(..) {
        queued.push((running.await.unwrap().queue, priority));
    }
    // All were submitted within the time that the last one waited, so the waits tell the order.
    queued.sort();
    let order: Vec<_> = queued.iter().map(|(_, priority)| *priority).collect();
    assert_eq!(order, [Priority::High, Priority::Normal, Priority::Low]);
}

#[tokio::test]
async fn a_deadline_that_passes_in_the_queue_is_not_run() {
    let runtime = runtime();
    let (looping, good) = (looping(&runtime), load(&runtime, &packed(&identity())));
    let slots = Slots::new(1, 1).unwrap();
    let busy = submit(&slots, &looping, Priority::Normal).unwrap();
    until(&slots, load_of(1, 0)).await;
    let late = slots
        .submit(
            Arc::clone(&good),
            vec![floats("x", &[2], &[1.0, 2.0])],
            Priority::Normal,
            Instant::now(),
        )
        .unwrap();
    // The queue has one place: a job that is too late gives it up to the next.
    let next = submit(&slots, &good, Priority::Normal).unwrap();
    let failure = late.await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
    assert!(
        failure.message.contains("while the request waited"),
        "{failure}"
    );
    drop(busy);
    next.await.unwrap();
}

#[tokio::test]
async fn dropping_the_slots_stops_everything() {
    let runtime = runtime();
    let (looping, good) = (looping(&runtime), load(&runtime, &packed(&identity())));
    let slots = Slots::new(1, 8).unwrap();
    let busy = submit(&slots, &looping, Priority::Normal).unwrap();
    until(&slots, load_of(1, 0)).await;
    let waiting = submit(&slots, &good, Priority::Normal).unwrap();
    drop(slots);
    for stopped in [busy, waiting] {
        let failure = stopped.await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
        assert_eq!(failure.message, "the daemon is stopping");
    }
}

#[test]
fn there_is_at_least_one_slot() {
    assert!(Slots::new(0, 1).is_err());
    assert!(Runtime::start(RuntimeConfig::new(0)).is_err());
    assert!(Runtime::start(RuntimeConfig::new(1 << 20)).is_err());
}

#[tokio::test]
async fn a_model_that_never_answers_leaves_a_slot_to_one_that_does() {
    let runtime = runtime();
    let (looping, good) = (looping(&runtime), load(&runtime, &packed(&identity())));
    let slots = Slots::new(2, 8).unwrap();
    submit(&slots, &good, Priority::Normal)
        .unwrap()
        .await
        .unwrap();
    let two_slots = |busy, queued| SlotLoad {
        slots: 2,
        busy,
        queued,
    };
    // Callers that go away did not get an answer either.
    for _ in 0..4 {
        let left = submit(&slots, &looping, Priority::Normal).unwrap();
        until(&slots, two_slots(1, 0)).await;
        drop(left);
        until(&slots, two_slots(0, 0)).await;
    }
    let loops: Vec<_> = (0..4)
        .map(|_| submit(&slots, &looping, Priority::Normal).unwrap())
        .collect();
    // One of them runs; the others have half of the queue, and no slot although one is free.
    until(&slots, two_slots(1, 3)).await;
    let fifth = submit(&slots, &looping, Priority::Normal).unwrap();
    let sixth = submit(&slots, &looping, Priority::High);
    assert_eq!(sixth.unwrap_err(), Denied::QueueFull);
    for _ in 0..8 {
        submit(&slots, &good, Priority::Normal)
            .unwrap()
            .await
            .unwrap();
    }
    assert_eq!(slots.load(), two_slots(1, 4));
    drop((loops, fifth));
}

#[tokio::test]
async fn models_that_wait_take_turns() {
    let runtime = runtime();
    let (busy, quiet) = (
        load(&runtime, &packed(&identity())),
        load(&runtime, &module(&guest("", "", ECHO))),
    );
    let slots = Slots::new(1, 64).unwrap();
    let blocker = submit(&slots, &looping(&runtime), Priority::Normal).unwrap();
    until(&slots, load_of(1, 0)).await;
    let many: Vec<_> = (0..32)
        .map(|_| submit(&slots, &busy, Priority::Normal).unwrap())
        .collect();
    let one = submit(&slots, &quiet, Priority::Normal).unwrap();
    let clocks = [&one, many.last().unwrap()].map(Running::clock);
    drop(blocker);
    one.await.unwrap();
    for job in many {
        job.await.unwrap();
    }
    let [one, last] = clocks.map(|clock| clock.running_for().unwrap());
    assert!(one > last, "the last to come waited for all");
}
