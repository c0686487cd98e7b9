//! A thread that stopped is noticed from outside, and ends the process where that is wanted.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use actix::Arbiter;
use iris_actors::supervision::{Watchdog, WatchdogSettings, in_request};
use iris_protocol::SupervisionKind;

use crate::probe::act;
use crate::stage::{Stage, temporary};

const SETTINGS: WatchdogSettings = WatchdogSettings {
    tick: Duration::from_millis(5),
    thread_budget: Duration::from_millis(100),
    abort_after: None,
};

/// Set in the process that is to be aborted.
const HANGS: &str = "IRIS_TEST_HANGS";
/// Number of the signal that `abort` raises (POSIX).
const SIGABRT: i32 = 6;

#[actix_rt::test]
async fn a_blocked_thread_is_told_with_who_blocks_it_and_until_when() {
    let mut stage = Stage::new();
    let thread = Arbiter::new();
    let mut child = stage.spawn_on(&thread, &stage.node, temporary("one"));
    child.count().await;
    let watchdog = Watchdog::start(&stage.supervision, SETTINGS).unwrap();
    assert!(!stage.supervision.is_blocked());
    let (release, released) = channel::<()>();
    let block = act(move |_, _| {
        released.recv().unwrap_err();
    });
    in_request("req_1".into(), async { child.address.tell(block) }).await;
    let blocked = stage.next_where("who blocks", |record| record.error.is_some()).await;
    assert_eq!(blocked.kind, SupervisionKind::Blocked);
    assert_eq!(blocked.error.as_deref(), Some("held up by node/probe/one"));
    assert_eq!(blocked.message.as_deref(), Some("Act"));
    assert_eq!(blocked.request_id.as_deref(), Some("req_1"));
    assert_eq!(blocked.actor_kind, "arbiter");
    assert!(blocked.counts["ageMs"] >= 100);
    assert!(stage.supervision.is_blocked());
    let [seen] = &stage.supervision.threads()[..] else { panic!("not one thread") };
    assert!(seen.blocked_ms >= 100);
    assert_eq!(seen.name, blocked.path);
    assert_eq!(seen.actor.as_deref(), Some(child.path()));
    assert_eq!(seen.message.as_deref(), Some("Act"));
    drop(release);
    let unblocked = stage.next(SupervisionKind::Unblocked).await;
    assert_eq!(unblocked.path, blocked.path);
    assert!(!stage.supervision.is_blocked());
    let [seen] = &stage.supervision.threads()[..] else { panic!("not one thread") };
    assert_eq!((seen.blocked_ms, &seen.actor, &seen.message), (0, &None, &None));
    drop(watchdog);
    child.address.vitals().stop();
    child.ended().await;
    thread.stop();
    thread.join().unwrap();
    stage.end(child).await;
}

#[test]
fn a_thread_that_stays_blocked_ends_the_process_where_that_is_wanted() {
    if std::env::var_os(HANGS).is_some() {
        return actix_rt::System::new().block_on(hang());
    }
    let name = "watchdog::a_thread_that_stays_blocked_ends_the_process_where_that_is_wanted";
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", name]).env(HANGS, "1").stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(again.status().unwrap().signal(), Some(SIGABRT));
}

async fn hang() {
    let stage = Stage::new();
    let child = stage.spawn(temporary("one"));
    let abort_after = Some(2 * SETTINGS.thread_budget);
    let watchdog =
        Watchdog::start(&stage.supervision, WatchdogSettings { abort_after, ..SETTINGS });
    child.address.ask(act(|_, _| std::thread::park_timeout(AT_MOST))).await.unwrap();
    drop(watchdog);
}

/// How long the process hangs if nothing ends it.
const AT_MOST: Duration = Duration::from_secs(20);
