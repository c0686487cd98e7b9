//! A panic in every kind of actor over every kind of message, found by watching one pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use iris_actors::FileSettings;
use iris_actors::connection::SocketSettings;
use iris_actors::supervision::faults::{Armed, Fault, START, Spot};
use iris_agent::{RetryLimits, TurnLimits};
use iris_llm::{ProviderConfig, ProviderKind};
use iris_protocol::SupervisionRecord;
use iris_testkit::{AppOptions, moment, patiently};

use crate::aftermath::{mark, nothing_is_left, records_since, told_of_one_panic};
use crate::bystander::Bystander;
use crate::player::Attempt;
use crate::scenario::Part;
use crate::stage::Stage;

/// Every kind of actor there is.
const KINDS: &[&str] = &[
    "archiver",
    "backups",
    "connection",
    "directory",
    "mcp",
    "orchestrator",
    "project",
    "recorder",
    "root",
    "session",
    "title",
];
/// Messages that are sent while the server stops (`ending.rs` has them), with pings (`heartbeats.rs`),
/// when a database turns out to be damaged (`corruption.rs`), and while the server starts, before
/// anybody could strike; a command that is run as a part of `AcceptImport`; what only parts of the server
/// itself send (`tests/api/listening.rs`); what is told of runs that wait (`tests/api/queueing.rs`); what takes an MCP server that answers (`tests/api/mcp.rs`), or a
/// conversation that is nearly too long (`tests/api/context.rs`), a provider with a wire (`tests/api/captures.rs`), or another master key
/// (`tests/api/credentials.rs`, `tests/api/custom_tools/rotation.rs`), or a repository and a sandbox (`tests/api/git`), or another sandbox at a start (`tests/api/audit.rs`);
/// and how locks end by themselves, and are taken
/// over a socket (`tests/api/files/locks.rs`).
const ELSEWHERE: &[&str] = &[
    "AskDuringCall",
    "Beat",
    "BeginClone",
    "BeginGitWork",
    "CloseAll",
    "Damaged",
    "EndClone",
    "EndGitWork",
    "EndLocks",
    "EndLocksOf",
    "ForgetProviderData",
    "ImportProject",
    "IsPresent",
    "KeepExchange",
    "LeaveOutOutputs",
    "Listen",
    "NoteGit",
    "OpenUnfinished",
    "RecordSandbox",
    "RoomHeads",
    "SealAgain",
    "SealCredentialsAgain",
    "SealGitAgain",
    "SetGitCredentials",
    "StoreNow",
    "TakeDatabase",
    "TellQueued",
    "TrimAudit",
    "TryGitWork",
    "ToolProgress",
    "Wake",
    "WakeMcp",
];
/// Messages that no request alone is the cause of. A panic over any other one names its request.
const UNASKED: &[&str] = &[
    "CloseIfIdle",
    "Committed",
    "Exited",
    "FindProject",
    "Inbound",
    "IsIdle",
    "LeaveRooms",
    "Look",
    "MoveUp",
    "Observe",
    "OrchestratorExited",
    "Reload",
    "SessionExited",
    "TitleEnded",
    // Of a run that the end of a sub-agent in the background has begun.
    "Write<CheckpointText>",
    "Write<ClearUnfinished>",
    "Write<NoteKeyUse>",
    "Write<CollectBlobs>",
    "Write<ExpireCaptures>",
    "Write<ExpireUploads>",
    "Write<FailRuns>",
    "Write<IndexParts>",
    "Write<NoteFilesKnown>",
    "Write<PublishMcpStatus>",
    "Write<PublishOutbox>",
    "Write<RecordFiles>",
    "Write<RecordSupervision>",
    "Write<RecordUsage>",
    "Write<RenewMcpTokens>",
    "Write<RecoverRuns>",
    "Write<SetTitle>",
    "Write<SettleOutbox>",
    "Write<TellFileAgents>",
    "Write<TrimAudit>",
    "Write<TrimEvents>",
    "Write<TrimVersions>",
    START,
];
/// Panics that an actor which is always there may have on one server: one more in the minute would be
/// its end.
const PANICS_MAX: usize = 5;
/// Spots that one server is struck at.
const SPOTS_MAX: usize = 12;
/// Servers that are struck at once.
const SERVERS_MAX: usize = 6;
/// What the clients of what panicked may have to wait for an error or an event, in milliseconds. Half
/// a second is promised; the rest is for slow machines.
const TOLD_WITHIN_MS: i64 = 5_000;
/// The same for what was struck to work again.
const BACK_WITHIN_MS: i64 = 5_000;

/// A server for a part.
async fn stage(part: Part) -> Stage {
    // Where projects close while they are idle, anything can happen to one at any time: only the part
    // that is about it wants that.
    let idle = if part == Part::Idle { Duration::from_millis(50) } else { Duration::from_mins(1) };
    let sockets = SocketSettings { ping_interval: None, ..SocketSettings::default() };
    // What is looked at by itself would be looked at at any time.
    let files = FileSettings { watch_after: Duration::from_hours(1), ..FileSettings::default() };
    let mut options = AppOptions { project_idle: idle, sockets, files, ..AppOptions::default() };
    let keyed = ProviderConfig {
        // Nobody asks it.
        base_url: Some("http://127.0.0.1:9/v1".to_owned()),
        ..ProviderConfig::new(ProviderKind::OpenAiCompatible)
    };
    options.providers.insert("keyed".to_owned(), keyed);
    options.context.titles = true;
    options.context.small_model.clone_from(&options.default_model);
    let base = Duration::from_millis(1);
    let retry = RetryLimits { attempts_max: 2, base, ..options.turn.retry };
    let turn = TurnLimits { retry, ..options.turn };
    Stage::set(AppOptions { turn, ..options }).await
}

impl Stage {
    /// Plays a part in which nothing goes wrong. Gives what could have been struck.
    async fn rehearse(&self, part: Part) -> BTreeSet<Spot> {
        self.app.supervision().faults().watch();
        let player = self.player(&[], None);
        part.play(&player).await;
        let attempts = player.attempts.take();
        let troubles: Vec<_> =
            attempts.iter().filter(|attempt| attempt.trouble.is_some()).collect();
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
        let is_abnormal = |r: &SupervisionRecord| r.is_abnormal() && player.spares(&r.path);
        let noticed = records_since(&self.app, since).into_iter().find(is_abnormal);
        assert!(noticed.is_none(), "{noticed:?}");
        let is_asked = !UNASKED.contains(&spot.message.as_str());
        assert!(!is_asked || panic.request_id.is_some(), "no request: {panic:?}");
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
        if matches!(armed.kind, "project" | "session" | "orchestrator" | "title") {
            return Some(armed);
        }
        self.app.supervision().faults().arm(armed);
        None
    }

    async fn struck(&self, spot: &Spot) {
        let struck = async {
            while !self.app.supervision().faults().armed().is_empty() {
                moment().await;
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
    /// To the end of the first attempt that succeeded at what had failed first, or that was under way.
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
        let trouble = after().find(|attempt| attempt.trouble.is_some());
        let told = trouble.map(|attempt| attempt.ended_at - at);
        // What goes wrong later in the same pass, for another reason, has a recovery of its own. Nobody
        // attempts to follow: whoever lost a connection is back with whatever succeeds next.
        let is_back = |attempt: &&Attempt| {
            attempt.trouble.is_none()
                && trouble.is_none_or(|trouble| {
                    let is_it = trouble.what == "follow" || trouble.what == attempt.what;
                    is_it && attempt.ended_at >= trouble.ended_at
                })
        };
        let success = after().find(is_back);
        Self { told, back: success.map_or(0, |attempt| attempt.ended_at - at) }
    }
}

#[tokio::test]
async fn a_panic_of_any_actor_over_any_message_harms_nobody_else_and_is_overcome() {
    let part_of = rehearsed().await;
    assert_complete(&part_of);
    let all = groups(part_of).into_iter().map(|group| async move {
        let stage = stage(group[0].1).await;
        let mut bystander = Bystander::join(&stage.app.user("bob").await).await;
        let mut times = Vec::new();
        for (spot, part) in group {
            times.push((stage.strike(&spot, part, &mut bystander).await, spot));
        }
        times
    });
    let all: Vec<Vec<_>> = stream::iter(all).buffer_unordered(SERVERS_MAX).collect().await;
    let all: Vec<(Times, Spot)> = all.into_iter().flatten().collect();
    report("told after", all.iter().filter_map(|(times, _)| times.told).collect());
    report("back after", all.iter().map(|(times, _)| times.back).collect());
    for (times, spot) in all {
        assert!(times.told.is_none_or(|told| told < TOLD_WITHIN_MS), "{times:?} {spot:?}");
        assert!(times.back < BACK_WITHIN_MS, "{times:?} {spot:?}");
    }
}

/// For people who look: `--nocapture`.
fn report(what: &str, mut times: Vec<i64>) {
    times.sort_unstable();
    let (min, median, max) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    eprintln!("{what} ms: min {min}, median {median}, max {max} of {} panics", times.len());
}

/// Every spot of a pass in which nothing goes wrong, and the first part that has it.
async fn rehearsed() -> BTreeMap<Spot, Part> {
    let rehearsals = Part::ALL.iter().map(|part| async {
        let spots = stage(*part).await.rehearse(*part).await;
        (*part, spots)
    });
    let mut part_of: BTreeMap<Spot, Part> = BTreeMap::new();
    for (part, spots) in join_all(rehearsals).await {
        for spot in spots {
            part_of.entry(spot).or_insert(part);
        }
    }
    part_of
}

/// Checks that the pass has met every kind of actor, and every message and command in the sources.
fn assert_complete(part_of: &BTreeMap<Spot, Part>) {
    let mut kinds: Vec<&str> = part_of.keys().map(|spot| spot.kind.as_str()).collect();
    kinds.dedup();
    assert_eq!(kinds, KINDS);
    let is_met = |name: &str| {
        let is_it =
            |spot: &Spot| spot.message.split('<').any(|part| part.trim_matches('>') == name);
        part_of.keys().any(is_it)
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (folder, mark) in [("actors/src", "Handler<"), ("crates/store/src", "impl Command for ")] {
        for name in declared(&root.join(folder), mark) {
            assert!(is_met(&name) || ELSEWHERE.contains(&name.as_str()), "no part has `{name}`");
        }
    }
}

/// The names that follow a mark in the first lines of implementations.
fn declared(folder: &Path, mark: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(declared(&path, mark));
            continue;
        }
        let source = fs::read_to_string(path).unwrap();
        for line in source.lines().filter(|line| line.starts_with("impl")) {
            let Some((_, after)) = line.split_once(mark) else { continue };
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            names.insert(after.split(|c| !is_name(c)).next().unwrap().to_owned());
        }
    }
    names
}

/// As many spots as one server can bear.
fn groups(spots: BTreeMap<Spot, Part>) -> Vec<Vec<(Spot, Part)>> {
    let mut groups: Vec<Vec<(Spot, Part)>> = Vec::new();
    for (spot, part) in spots {
        let has_room = |group: &&mut Vec<(Spot, Part)>| {
            let of_kind = group.iter().filter(|(other, _)| other.kind == spot.kind).count();
            let is_apart = (group[0].1 == Part::Idle) != (part == Part::Idle);
            let is_permanent =
                matches!(spot.kind.as_str(), "root" | "directory" | "recorder" | "backups");
            !is_apart && group.len() < SPOTS_MAX && !(is_permanent && of_kind >= PANICS_MAX)
        };
        match groups.iter_mut().find(has_room) {
            Some(group) => group.push((spot, part)),
            None => groups.push(vec![(spot, part)]),
        }
    }
    groups
}
