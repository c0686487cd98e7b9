//! The smallest actor there can be, started and asked the way of plain actix and the way of supervision.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use iris_actors::supervision::{Address, AskError, ChildSpec, Supervise, Vitals, spawn};

/// An actor without state.
pub(crate) struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

iris_actors::supervised!(Idle);

impl Supervise for Idle {}

/// Ask: what one plus the number is.
#[derive(Message)]
#[rtype(result = "u64")]
pub(crate) struct Add(pub(crate) u64);

impl Handler<Add> for Idle {
    type Result = u64;

    fn handle(&mut self, Add(number): Add, _: &mut Context<Self>) -> u64 {
        number + 1
    }
}

/// Starts actors as actix does.
#[expect(clippy::disallowed_methods, reason = "this is what supervision is compared with")]
pub(crate) fn start_plain(count: u64) -> Vec<Addr<Idle>> {
    (0..count).map(|_| Idle.start()).collect()
}

/// Starts actors of which each has a number from `first` on.
pub(crate) fn start_supervised(
    parent: &Arc<Vitals>,
    specs: impl IntoIterator<Item = ChildSpec>,
) -> Vec<Address<Idle>> {
    specs.into_iter().map(|spec| spawn(parent, spec, |_, _| Idle, |_| {})).collect()
}

/// Specs of as many actors, all with different names.
pub(crate) fn specs(count: u64) -> Vec<ChildSpec> {
    (0..count).map(|number| ChildSpec::new("idle", number.to_string())).collect()
}
