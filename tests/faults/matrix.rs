//! A panic in every kind of actor over every kind of message, found by watching one pass.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use iris_actors::supervision::faults::{Armed, Fault, Spot};
use iris_testkit::{AppOptions, Person, TestApp, patiently, };

use crate::aftermath::{mark, nothing_is_left, told_of_one_panic};
use crate::server;
use crate::bystander::Bystander;
use crate::player::{Attempt, Player};
use crate::scenario::Part;

/// Every kind of actor there is.
const KINDS: &[&str] =
    &["connection", "directory", "orchestrator", "project", "recorder", "root", "session"];
/// Panics that an actor which is always there may have on one server: one more in the minute would be
/// its end.
const PANICS_MAX: usize = 5;
/// Spots that one server is struck at.
const SPOTS_MAX: usize = 12;
/// What the clients of what panicked may have to wait for an error or an event, in milliseconds. Half
/// a second is promised; the rest is for slow machines.
const TOLD_WITHIN_MS: i64 = 2_000;
/// The same for what was struck to work again.
const BACK_WITHIN_MS: i64 = 2_000;

/// A server and those who use it.
struct Stage {
    app: TestApp,
    operator: Person,
    person: Person,
    friend: Person,
}

impl Stage {
    async fn set(part: Part) -> Self {
        // Where projects close while they are idle, anything can happen to one at any time: only the
        // part that is about it wants that.
        let idle = if part == Part::Idle { Duration::from_millis(50) } else { Duration::from_mins(1) };
        let options = AppOptions { project_idle: idle, ..AppOptions::default() };
        let app = server(options).await;
        let operator = app.admin().await;
        let (person, friend) = (app.user("ann").await, app.user("fay").await);
        Self { app, operator, person, friend }
    }

    fn player(&self, spared: &[String], armed: Option<Armed>) -> Player<'_> {
        Player {
            app: &self.app,
            person: &self.person,
            friend: &self.friend,
            operator: &self.operator,
            spared: spared.to_vec(),
            armed: Cell::new(armed),
            attempts: RefCell::default(),
        }
    }

    /// Plays a part in which nothing goes wrong. Gives what could have been struck.
    async fn rehearse(&self, part: Part) -> BTreeSet<Spot> {
        self.app.supervision().faults().watch();
        let player = self.player(&[], None);
        part.play(&player).await;
        let attempts = player.attempts.take();
        let troubles: Vec<_> = attempts.iter().filter(|attempt| attempt.trouble.is_some()).collect();
        // An operator's restart of a project closes the sockets in its rooms.
        assert!(troubles.is_empty() || part == Part::Operator, "{troubles:#?}");
        nothing_is_left(&self.app, &[]).await;
        self.app.supervision().faults().seen()
    }

    /// Plays a part in which an actor panics at this spot, while somebody else notices nothing.
    async fn strike(&self, spot: &Spot, part: Part, bystander: &mut Bystander) -> Times {
        bystander.begin().await;
        let spared = bystander.paths();
        let since = mark(&self.app);
        let player = self.player(&spared, self.arm(spot));
        part.play(&player).await;
        self.struck(spot).await;
        bystander.check().await;
        nothing_is_left(&self.app, &spared).await;
        let panic = told_of_one_panic(&self.app, since, &spot.kind, &spot.message).await;
        Times::of(&player.attempts.take(), panic.at)
    }

    /// Arms a panic now, or gives it back when it is for the project that the player will create.
    fn arm(&self, spot: &Spot) -> Option<Armed> {
        let armed = Armed {
            kind: KINDS.iter().find(|kind| **kind == spot.kind).unwrap(),
            message: spot.message.clone(),
            fault: if spot.is_later { Fault::PanicLater } else { Fault::Panic },
            times: 1,
        };
        if matches!(armed.kind, "project" | "session" | "orchestrator") {
            return Some(armed);
        }
        self.app.supervision().faults().arm(armed);
        None
    }

    async fn struck(&self, spot: &Spot) {
        let struck = async {
            while !self.app.supervision().faults().armed().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        patiently(&format!("the strike at {spot:?}"), struck).await;
    }
}

/// Milliseconds from the panic.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// To the first error that a client got; none when no client noticed.
    told: Option<i64>,
    /// To the end of the first attempt that succeeded at what had failed, or that was under way.
    back: i64,
}

impl Times {
    fn of(attempts: &[Attempt], at: i64) -> Self {
        // What the operator orders after it has effects of its own.
        let is_order = |attempt: &&Attempt| matches!(attempt.what, "restart" | "stop");
        let after = || {
            let after = attempts.iter().filter(|attempt| attempt.ended_at >= at);
            after.take_while(|attempt| attempt.began_at <= at || !is_order(attempt))
        };
        let troubles = || after().filter(|attempt| attempt.trouble.is_some());
        let told = troubles().map(|attempt| attempt.ended_at - at).next();
        let last = troubles().map(|attempt| attempt.ended_at).max().unwrap_or(at);
        let success = after().find(|a| a.trouble.is_none() && a.ended_at >= last);
        Self { told, back: success.map_or(0, |attempt| attempt.ended_at - at) }
    }
}

#[tokio::test]
async fn a_panic_of_any_actor_over_any_message_harms_nobody_else_and_is_overcome() {
    let rehearsals = Part::ALL.iter().map(|part| async {
        let spots = Stage::set(*part).await.rehearse(*part).await;
        (*part, spots)
    });
    // A spot is struck in the first part that has it.
    let mut part_of: BTreeMap<Spot, Part> = BTreeMap::new();
    for (part, spots) in join_all(rehearsals).await {
        for spot in spots {
            part_of.entry(spot).or_insert(part);
        }
    }
    let mut kinds: Vec<&str> = part_of.keys().map(|spot| spot.kind.as_str()).collect();
    kinds.dedup();
    assert_eq!(kinds, KINDS, "{part_of:#?}");
    for (spot, part) in &part_of { eprintln!("{part:?} {spot:?}"); }
    let groups = groups(part_of);
    eprintln!("{} groups", groups.len());
    let all = join_all(groups.into_iter().map(|group| async move {
        let stage = Stage::set(group[0].1).await;
        let mut bystander = Bystander::join(&stage.app.user("bob").await).await;
        let mut times = Vec::new();
        for (spot, part) in group {
            eprintln!("{spot:?} {part:?}");
            let time = stage.strike(&spot, part, &mut bystander).await;
            eprintln!("{spot:?} {part:?} {time:?}");
            times.push((spot, time));
        }
        times
    }))
    .await;
    let _ = (all, TOLD_WITHIN_MS, BACK_WITHIN_MS);
}

/// As many spots as one server can bear.
fn groups(spots: BTreeMap<Spot, Part>) -> Vec<Vec<(Spot, Part)>> {
    let mut groups: Vec<Vec<(Spot, Part)>> = Vec::new();
    for (spot, part) in spots {
        let has_room = |group: &&mut Vec<(Spot, Part)>| {
            let of_kind = group.iter().filter(|(other, _)| other.kind == spot.kind).count();
            let is_apart = (group[0].1 == Part::Idle) != (part == Part::Idle);
            let is_permanent = matches!(spot.kind.as_str(), "root" | "directory" | "recorder");
            !is_apart && group.len() < SPOTS_MAX && !(is_permanent && of_kind >= PANICS_MAX)
        };
        match groups.iter_mut().find(has_room) {
            Some(group) => group.push((spot, part)),
            None => groups.push(vec![(spot, part)]),
        }
    }
    groups
}
