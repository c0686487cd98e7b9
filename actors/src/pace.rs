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
                let unused = steps.left.available_permits();
                steps.left.add_permits(steps.a_round.saturating_sub(unused));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Has steps taken one after the other by so many at once; what happened, rounds in between.
    async fn taken(pace: &Pace, by: usize) -> Vec<&'static str> {
        let happened = Rc::<RefCell<Vec<&str>>>::default();
        let steps = (0..by).map(|_| {
            let (pace, happened) = (pace.clone(), Rc::clone(&happened));
            detached(async move {
                pace.step().await;
                happened.borrow_mut().push("step");
            })
        });
        let steps: Vec<_> = steps.collect();
        while happened.borrow().iter().filter(|what| **what == "step").count() < by {
            yield_now().await;
            happened.borrow_mut().push("others");
        }
        for step in steps {
            step.await.unwrap();
        }
        happened.take()
    }

    #[actix_rt::test]
    async fn others_have_their_turn_between_the_steps_of_a_crowd() {
        let happened = taken(&Pace::new(2), 9).await;
        for steps in happened.split(|what| *what == "others") {
            assert!(steps.len() <= 2, "{happened:?}");
        }
    }

    #[actix_rt::test]
    async fn who_gives_up_takes_no_turn() {
        let pace = Pace::new(1);
        pace.step().await;
        let waiting: Vec<_> = (0..3).map(|_| Box::pin(pace.step())).collect();
        for mut step in waiting {
            assert!(futures_util::poll!(&mut step).is_pending());
            drop(step);
        }
        assert_eq!(taken(&pace, 3).await.iter().filter(|what| **what == "step").count(), 3);
    }
}
