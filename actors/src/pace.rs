//! Fairness inside a thread: work that many ask for at once is done little by little, with a turn for everybody
//! else of the thread in between (docs/decisions/0024).

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::yield_now;

use crate::supervision::detached;

/// Lets one step of one kind of work happen in each round of a thread's tasks; the others wait for the next rounds
/// in the order in which they came. A clone is the same pace.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Semaphore>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Pace {
    /// Waits for the turn of the next step, on the thread whose pace this is. One that is given up while it
    /// waits takes no turn.
    pub async fn step(&self) {
        // Nobody closes it.
        let Ok(turn) = self.0.acquire().await else { return };
        turn.forget();
        let turns = Arc::clone(&self.0);
        detached(async move {
            yield_now().await;
            turns.add_permits(1);
        });
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
