//! Requests: work that belongs to no actor, yet is named, watched and caught like an actor's.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Vitals;
use super::panics::catch;
use super::running::{Running, current_request, handling, run};

/// How long a request may take before it is reported as stuck.
const REQUEST_BUDGET: Duration = Duration::from_mins(1);

/// A request panicked. It is in the supervision log; whoever asked is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs `future` as the request `name`, as work of `node`.
///
/// # Errors
/// When it panics.
pub async fn guarded<T>(
    node: &Arc<Vitals>,
    name: &'static str,
    future: impl Future<Output = T>,
) -> Result<T, Panicked> {
    let _work = node.begin(name, REQUEST_BUDGET);
    node.supervision.watch_thread();
    let request = current_request();
    let (mut running, mut future) = (Some(Running::new(node)), pin!(future));
    poll_fn(|task| {
        let polled = catch(|| {
            let poll = || handling(name, request.as_ref(), || future.as_mut().poll(task));
            run(&mut running, poll)
        });
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(report) => {
                node.failed(&report.text);
                node.supervision.log().panicked(node, &report);
                Poll::Ready(Err(Panicked))
            }
        }
    })
    .await
}
