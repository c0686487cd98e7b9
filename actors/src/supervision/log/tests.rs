use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::SystemClock;
use crate::supervision::{ChildSpec, Supervision};

fn supervision() -> Supervision {
    Supervision::new(Arc::new(SystemClock))
}

fn actor(supervision: &Supervision, id: &str) -> Vitals {
    Vitals::child(&supervision.node(), &ChildSpec::new("probe", id))
}

fn panic(log: &SupervisionLog, vitals: &Vitals) {
    log.panicked(vitals, &PanicReport::default());
}

/// The kinds of records that a subscriber gets.
fn listen(log: &SupervisionLog) -> Receiver<String> {
    let (sender, receiver) = channel();
    log.subscribe(move |frame| {
        let frame: serde_json::Value = serde_json::from_slice(frame).unwrap();
        assert_eq!(frame["room"], "admin");
        sender.send(frame["type"].as_str().unwrap().to_owned()).is_ok()
    });
    receiver
}

fn paths(log: &SupervisionLog, filter: &RecordFilter) -> Vec<String> {
    log.records(filter).into_iter().map(|record| record.path).collect()
}

#[test]
fn records_are_found_by_id_by_kind_and_by_path() {
    let supervision = supervision();
    let log = supervision.log();
    let actors = ["one", "one/child", "one-more"].map(|id| actor(&supervision, id));
    for vitals in &actors {
        log.started(vitals);
        panic(log, vitals);
    }
    let all = log.records(&RecordFilter::default());
    assert!(all.is_sorted_by(|a, b| a.id < b.id), "the two classes are not in one order");
    assert_eq!(all.len(), 6);
    let since = RecordFilter { since: Some(all[3].id), ..RecordFilter::default() };
    assert_eq!(log.records(&since), all[4..]);
    let kind = RecordFilter { kind: Some(SupervisionKind::Panicked), ..RecordFilter::default() };
    assert_eq!(log.records(&kind), [1, 3, 5].map(|at| all[at].clone()));
    // `one-more` begins with the same letters and does not stand under `one`.
    let path = Some("node/probe/one".to_owned());
    let under = RecordFilter { path, kind: Some(SupervisionKind::Started), since: None };
    assert_eq!(paths(log, &under), ["node/probe/one", "node/probe/one/child"]);
}

#[test]
fn a_storm_of_normal_records_pushes_no_abnormal_one_out() {
    let supervision = supervision();
    let log = supervision.log();
    panic(log, &actor(&supervision, "one"));
    let many = actor(&supervision, "many");
    for _ in 0..3_000 {
        log.started(&many);
    }
    let records = log.records(&RecordFilter::default());
    assert_eq!(records.len(), RECORDS_IN_MEMORY_MAX + 1);
    assert_eq!(records[0].kind, SupervisionKind::Panicked);
    // The other way round no more than the oldest abnormal one is lost.
    for _ in 0..RECORDS_IN_MEMORY_MAX {
        panic(log, &many);
    }
    let records = log.records(&RecordFilter::default());
    assert_eq!(records.len(), 2 * RECORDS_IN_MEMORY_MAX);
    assert!(records.iter().all(|record| record.path == "node/probe/many"));
    assert!(records.is_sorted_by(|a, b| a.id < b.id));
}

#[tokio::test(start_paused = true)]
async fn live_subscribers_get_every_abnormal_record_and_few_normal_ones_a_second() {
    let supervision = supervision();
    let log = supervision.log();
    let heard = listen(log);
    let actor = actor(&supervision, "one");
    for second in 1..=2 {
        for _ in 0..=LIVE_NORMAL_PER_SECOND_MAX {
            log.started(&actor);
        }
        panic(log, &actor);
        let frames: Vec<String> = heard.try_iter().collect();
        let normal = LIVE_NORMAL_PER_SECOND_MAX as usize;
        assert_eq!(frames.len(), normal + 1, "in second {second}");
        assert!(frames[..normal].iter().all(|kind| kind == "supervision.started"));
        assert_eq!(frames[normal], "supervision.panicked");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
}

#[test]
fn a_subscriber_that_has_gone_is_dropped_and_the_others_stay() {
    let supervision = supervision();
    let log = supervision.log();
    let actor = actor(&supervision, "one");
    let (stays, goes) = (listen(log), listen(log));
    drop(goes);
    for _ in 0..2 {
        log.started(&actor);
        assert_eq!(log.live.lock().subscribers.len(), 1);
    }
    assert_eq!(stays.try_iter().count(), 2);
}

#[test]
fn a_subscriber_finds_what_it_hears_of() {
    let supervision = supervision();
    let (seen, log) = (supervision.clone(), supervision.log());
    let (sender, receiver) = channel();
    log.subscribe(move |_| sender.send(seen.log().records(&RecordFilter::default()).len()).is_ok());
    panic(log, &actor(&supervision, "one"));
    assert_eq!(receiver.try_recv(), Ok(1));
}

#[tokio::test]
async fn abnormal_records_wait_to_be_stored_and_those_over_the_bound_are_counted() {
    let supervision = supervision();
    let log = supervision.log();
    let actor = actor(&supervision, "one");
    log.started(&actor);
    log.stopped(&actor, &ExitReason::Normal);
    assert_eq!(log.take_waiting(usize::MAX), [], "normal records are not stored");
    for _ in 0..RECORDS_WAITING_MAX + 3 {
        panic(log, &actor);
    }
    log.something_waits().await;
    assert_eq!(log.dropped(), 3);
    assert_eq!(log.take_waiting(24).len(), 24);
    assert_eq!(log.take_waiting(usize::MAX).len(), RECORDS_WAITING_MAX - 24);
    log.lost(2);
    assert_eq!(log.dropped(), 5);
    // There is room again, and who waits is told.
    let waits = async {
        log.something_waits().await;
        log.take_waiting(usize::MAX).len()
    };
    let (count, ()) = tokio::join!(waits, async { panic(log, &actor) });
    assert_eq!((count, log.dropped()), (1, 5));
}
