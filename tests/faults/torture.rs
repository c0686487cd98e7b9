//! The real server is killed under load: what the program `torture` does for hours, for a minute.

use iris_testkit::torture::{Torture, TortureOptions, torture};

/// Any other one has to do as well: `IRIS_TORTURE_SEED` chooses it.
const SEED: u64 = 20_260_921;

fn options(rounds: u32) -> TortureOptions {
    let seed = std::env::var("IRIS_TORTURE_SEED").ok().and_then(|seed| seed.parse().ok());
    TortureOptions::new(env!("CARGO_BIN_EXE_iris"), seed.unwrap_or(SEED), rounds)
}

async fn tortured(options: &TortureOptions) -> Torture {
    eprintln!("seed {}", options.seed);
    torture(options, |round| eprintln!("{round:?}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed_under_load() {
    let outcome = tortured(&options(60)).await;
    assert_eq!(outcome.rounds.len(), 60);
    assert_eq!(outcome.findings().collect::<Vec<_>>(), Vec::<&String>::new(), "{:?}", outcome.kept);
    // A load that does nothing proves nothing.
    assert!(outcome.total(|round| round.acknowledged) > 100, "{outcome:?}");
    assert!(outcome.total(|round| round.committed_unanswered) > 10, "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_hundred_projects_is_ready_again_within_a_second() {
    let options = TortureOptions { projects: 100, ..options(4) };
    let outcome = tortured(&options).await;
    assert_eq!(outcome.rounds.len(), 4);
    assert_eq!(outcome.findings().collect::<Vec<_>>(), Vec::<&String>::new(), "{:?}", outcome.kept);
}

/// The negative control: the comparison has to notice a server that breaks the promise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_acknowledges_before_it_commits_is_found_out() {
    let environment = vec![("IRIS_FAULT_ACK_EARLY".to_owned(), "5".to_owned())];
    let outcome = tortured(&TortureOptions { environment, ..options(20) }).await;
    let is_about_loss =
        |finding: &&String| finding.contains("is lost") || finding.contains("differs");
    let lost = outcome.findings().filter(is_about_loss).count();
    assert!(lost > 0, "{outcome:?}");
    let (kept, _) = outcome.kept.unwrap();
    std::fs::remove_dir_all(kept).unwrap();
}
