//! How long a caller waits for a request, and whether it can still be given up.
//!
//! Reading can be given up at any time. What changes something can be until it begins; from then on it
//! goes on whatever becomes of its caller, and answers if it can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode, Method, Operation};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::supervision::detached;

/// How much longer than its deadline a command may take that has begun: its commit may be on the way.
const COMMIT_GRACE: Duration = Duration::from_millis(250);

const WAITS: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

tokio::task_local! {
    static PATIENCE: Arc<Patience>;
}

/// What the caller of one request puts up with.
#[derive(Debug, Default)]
pub struct Patience {
    state: AtomicU8,
    cancelled: Notify,
    deadline: Option<Instant>,
}

impl Patience {
    /// Of a caller who waits for `deadline_ms` milliseconds from now, or for as long as it takes.
    pub fn new(deadline_ms: Option<u64>) -> Arc<Self> {
        let deadline =
            deadline_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        Arc::new(Self { deadline, ..Self::default() })
    }

    /// Gives the request up; says whether that was still possible.
    pub fn cancel(&self) -> bool {
        let is_given_up = self.turn(GIVEN_UP);
        if is_given_up {
            self.cancelled.notify_one();
        }
        is_given_up
    }

    /// Notes that the work is done; says whether nobody has given it up before.
    pub(crate) fn finish(&self) -> bool {
        self.turn(BEGUN) || self.state.load(Ordering::Acquire) == BEGUN
    }

    fn turn(&self, state: u8) -> bool {
        self.state.compare_exchange(WAITS, state, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Waits until the patience is over; says with which code that ends what can be given up.
    pub(crate) async fn over(&self) -> ErrorCode {
        let deadline = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.cancelled.notified() => ErrorCode::Cancelled,
            () = deadline => ErrorCode::DeadlineExceeded,
        }
    }

    /// Runs the work of a request as long as its caller is patient. What has begun goes on in a task
    /// of its own when it is not answered in time.
    ///
    /// # Errors
    /// Those of the work; `CANCELLED`; `DEADLINE_EXCEEDED`, with reason `outcome_unknown` when the work
    /// goes on.
    pub async fn bear<T: 'static>(
        self: Arc<Self>,
        work: impl Future<Output = Result<T, ApiError>> + 'static,
    ) -> Result<T, ApiError> {
        let mut work = Box::pin(PATIENCE.scope(Arc::clone(&self), work));
        let code = tokio::select! {
            biased;
            done = &mut work => {
                return if self.finish() { done } else { Err(given_up(ErrorCode::Cancelled)) };
            }
            code = self.over() => code,
        };
        if code == ErrorCode::Cancelled || self.turn(GIVEN_UP) {
            return Err(given_up(code));
        }
        if let Ok(done) = timeout(COMMIT_GRACE, &mut work).await {
            return done;
        }
        detached(work);
        Err(given_up(code).reason("outcome_unknown"))
    }
}

/// The answer to a request that was given up.
pub(crate) fn given_up(code: ErrorCode) -> ApiError {
    let message = if code == ErrorCode::Cancelled {
        "the request was cancelled"
    } else {
        "the request was not answered before its deadline"
    };
    ApiError::new(code, message)
}

/// Notes that the operation begins now, unless it only reads.
///
/// # Errors
/// `CANCELLED` when its caller gave it up already.
pub(super) fn begin(operation: Operation) -> Result<(), ApiError> {
    let only_reads = operation.spec().rest.is_some_and(|route| route.method == Method::Get);
    let begins = || PATIENCE.try_with(|patience| patience.turn(BEGUN)).unwrap_or(true);
    if only_reads || begins() { Ok(()) } else { Err(given_up(ErrorCode::Cancelled)) }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn code<T>(result: Result<T, ApiError>) -> (ErrorCode, Option<String>) {
        let error = result.err().unwrap();
        let reason = error.details.get("reason").and_then(|reason| reason.as_str());
        (error.code, reason.map(str::to_owned))
    }

    #[tokio::test]
    async fn what_was_given_up_has_no_answer_although_it_is_ready() {
        let patience = Patience::new(None);
        assert!(patience.cancel());
        let answer = patience.bear(async { Ok(()) }).await;
        assert_eq!(code(answer), (ErrorCode::Cancelled, None));
        let patience = Patience::new(None);
        assert_eq!(Arc::clone(&patience).bear(async { Ok(1) }).await.ok(), Some(1));
        assert!(!patience.cancel());
    }

    #[tokio::test(start_paused = true)]
    async fn reading_is_dropped_at_its_deadline() {
        let (alive, dropped) = oneshot::channel::<()>();
        let work = async move {
            begin(Operation::UserGet)?;
            let _alive = alive;
            std::future::pending::<Result<(), ApiError>>().await
        };
        let answer = Patience::new(Some(5)).bear(work).await;
        assert_eq!(code(answer), (ErrorCode::DeadlineExceeded, None));
        assert!(dropped.await.is_err());
    }

    #[actix_rt::test]
    async fn what_has_begun_cannot_be_cancelled_and_answers() {
        let patience = Patience::new(None);
        let (go, gone) = oneshot::channel();
        let cancel = Arc::clone(&patience);
        let work = async move {
            begin(Operation::ProjectCreate)?;
            assert!(!cancel.cancel());
            go.send(()).unwrap();
            Ok(7)
        };
        assert_eq!(patience.bear(work).await, Ok(7));
        gone.await.unwrap();
    }

    #[actix_rt::test]
    async fn what_has_begun_goes_on_after_its_deadline() {
        let (go, gate) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let work = async move {
            begin(Operation::ProjectCreate)?;
            gate.await.unwrap();
            end.send(()).unwrap();
            Ok(())
        };
        let answer = Patience::new(Some(1)).bear(work).await;
        let expected = (ErrorCode::DeadlineExceeded, Some("outcome_unknown".to_owned()));
        assert_eq!(code(answer), expected);
        go.send(()).unwrap();
        ended.await.unwrap();
    }

    #[actix_rt::test]
    async fn what_commits_about_its_deadline_still_answers() {
        let work = async {
            begin(Operation::ProjectCreate)?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(7)
        };
        assert_eq!(Patience::new(Some(1)).bear(work).await, Ok(7));
    }

    #[actix_rt::test]
    async fn what_is_given_up_before_it_begins_does_not_begin() {
        let patience = Patience::new(None);
        assert!(patience.cancel());
        let begun = PATIENCE.sync_scope(Arc::clone(&patience), || begin(Operation::ProjectCreate));
        assert_eq!(code(begun), (ErrorCode::Cancelled, None));
        let work = std::future::pending::<Result<(), ApiError>>();
        assert_eq!(code(patience.bear(work).await), (ErrorCode::Cancelled, None));
    }
}
