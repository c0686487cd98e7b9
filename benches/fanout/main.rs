//! What it costs to tell many clients the same: Iris, and a bare server in the same run.
//!
//! ```text
//! cargo bench -p iris --bench fanout
//! cargo bench -p iris --bench fanout -- idle recovery
//! cargo bench -p iris --bench fanout -- --quick delivery-1000
//! ```
//!
//! Iris is the real `iris serve` in a process of its own, on the first core; this program is all of its
//! clients, on the second one, and reads no more than the head of a frame that nobody looks into.
//! The bare server (`bare`) is this program once more, on the first core as well: one thread of tokio, a
//! task for each connection, one broadcast channel of frames that are encoded already, as many of them in
//! one write as Iris joins, and sockets with the options of Iris's.
//! It hears the same clients, and says frames of the size that Iris has just been seen to send.
//!
//! At 20,000 deliveries a second Iris publishes durable events, changes of the title of a session that all
//! clients follow: 20 commits a second to 1,000 of them. Each is one frame by itself for every client, and
//! so is each of the bare server's.
//! At full speed commits would be what is measured. Iris then streams: the scripted model answers in many
//! sessions at once, all clients follow all of these, and what came of every answer is sent every 30 ms,
//! 100,000 deliveries a round. The bare server publishes as many frames a round, and begins the next when
//! all clients took the last.
//! All that Iris does for it is counted as the cost of deliveries: requests, the model, commits.
//! Rates and numbers of connections of a user are not limited here, because one user is everybody.
//!
//! Names of groups (the modules here, and `delivery-1000` and `delivery-5000`) choose what is measured.
//! With `--quick` everything is measured once where it else is several times: a look and no result.
//! Ends with 1 when the median of a figure misses its target. Needs Linux, two cores, `taskset`, and a
//! machine that does nothing else: processor time for a delivery bears company, delays do not.

mod bare;
#[path = "../figures/conversation.rs"]
#[expect(dead_code, reason = "the bench `figures` uses the rest")]
mod conversation;
mod crowd;
mod delivery;
mod idle;
mod machine;
mod recovery;
mod scene;
#[path = "../figures/server.rs"]
#[expect(dead_code, reason = "the bench `figures` uses the rest")]
mod server;
mod stalled;
mod storm;
#[path = "../figures/table.rs"]
mod table;
mod wire;

use std::process::ExitCode;

use table::Figure;

fn main() -> anyhow::Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if wanted.iter().any(|wanted| wanted == bare::ARGUMENT) {
        bare::serve()?;
        return Ok(ExitCode::SUCCESS);
    }
    table::print_machine()?;
    machine::become_client()?;
    let wants = |group: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == group);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = |usual| if is_quick { 1 } else { usual };
    let mut figures = Vec::new();
    for (group, crowd) in delivery::CROWDS {
        if wants("delivery") || wants(group) {
            figures.extend(runtime.block_on(crowd.figures(rounds(delivery::ROUNDS)))?);
        }
    }
    if wants("idle") {
        figures.extend(runtime.block_on(idle::figures())?);
    }
    if wants("recovery") {
        figures.extend(runtime.block_on(recovery::figures())?);
    }
    if wants("stalled") {
        figures.extend(runtime.block_on(stalled::figures(rounds(stalled::ROUNDS)))?);
    }
    if wants("storm") {
        figures.extend(runtime.block_on(storm::figures())?);
    }
    table::print(&figures)?;
    let all_met = figures.iter().all(Figure::is_met);
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
