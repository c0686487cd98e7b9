//! Fairness inside a thread: work that many ask for at once is done little by little, with a turn for everybody
//! else of the thread in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::supervision::detached;

/// Lets so many steps of one kind of work happen in one round of a thread's tasks; the others wait for the next
/// rounds in the order in which they came. A clone is the same pace.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Steps>);

#[derive(Debug)]
struct Steps {
    left: Semaphore,
    a_round: usize,
    /// Whether the next round is waited for.
    is_waited_for: AtomicBool,
}

impl Pace {
    /// One of `a_round` steps, which is at least one, in each round.
    pub fn new(a_round: usize) -> Self {
        let left = Semaphore::new(a_round);
        Self(Arc::new(Steps { left, a_round, is_waited_for: AtomicBool::new(false) }))
    }

    /// Waits for the turn of the next step, on the thread whose pace this is. One that is given up while it
    /// waits takes no turn.
    pub async fn step(&self) {
        let steps = &self.0;
        // Nobody closes it.
        if let Ok(step) = steps.left.acquire().await {
            step.forget();
        }
        if !steps.is_waited_for.swap(true, Ordering::AcqRel) {
            let steps = Arc::clone(steps);
            detached(async move {
                yield_now().await;
                steps.is_waited_for.store(false, Ordering::Release);
                steps.left.add_permits(steps.a_round - steps.left.available_permits());
            });
        }
    }
}
