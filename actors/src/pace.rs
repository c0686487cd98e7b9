//! Fairness inside a thread: work that many ask for at once is done little by little, with time for everybody
//! else of the thread in between (docs/decisions/0024).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::supervision::detached;

/// How many times as long as a step, and what else had its turn with it, others have the thread for themselves.
const RESTS: u32 = 2;
/// Shorter than this no timer waits: such rests are added up.
const REST_MIN: Duration = Duration::from_millis(1);
/// Longer than this nobody has to wait for others who work without a pause.
const REST_MAX: Duration = Duration::from_millis(5);

/// Lets one step of some kind of work happen at a time, and then others; who waits has their turn in the order in
/// which they came. A clone is the same pace.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Steps>);

#[derive(Debug)]
struct Steps {
    /// One, or none until the next step.
    turns: Semaphore,
    /// For how long others were not waited for yet.
    owed: Mutex<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(Steps { turns: Semaphore::new(1), owed: Mutex::default() }))
    }
}

impl Pace {
    /// Waits for the turn of the next step, on the thread whose pace this is; the step is what is done before
    /// somebody else is waited for. One that is given up while it waits takes no turn.
    pub async fn step(&self) {
        // Nobody closes it.
        if let Ok(turn) = self.0.turns.acquire().await {
            turn.forget();
        }
        let (steps, began) = (Arc::clone(&self.0), Instant::now());
        detached(async move {
            // Now the step is done, and what else is to be done.
            yield_now().await;
            steps.rest(began.elapsed()).await;
            steps.turns.add_permits(1);
        });
    }
}

impl Steps {
    async fn rest(&self, round: Duration) {
        let owed = (*self.owed.lock() + round * RESTS).min(REST_MAX);
        *self.owed.lock() = owed;
        if owed >= REST_MIN {
            sleep(owed).await;
            *self.owed.lock() = Duration::ZERO;
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
        let happened = taken(&Pace::default(), 9).await;
        for steps in happened.split(|what| *what == "others") {
            assert!(steps.len() <= 1, "{happened:?}");
        }
    }

    #[actix_rt::test]
    async fn who_gives_up_takes_no_turn() {
        let pace = Pace::default();
        pace.step().await;
        let waiting: Vec<_> = (0..3).map(|_| Box::pin(pace.step())).collect();
        for mut step in waiting {
            assert!(futures_util::poll!(&mut step).is_pending());
            drop(step);
        }
        assert_eq!(taken(&pace, 3).await.iter().filter(|what| **what == "step").count(), 3);
    }
}
