//! What Iris adds to the answers of a provider, beside a client that reads the provider itself in the same
//! run.
//!
//! ```text
//! cargo bench -p iris --bench agent
//! cargo bench -p iris --bench agent -- --quick crowd
//! ```
//!
//! The provider is this program once more, in a process of its own: it speaks Chat Completions over HTTP on
//! the loopback, and each chunk says when it was sent. Iris is the real `iris serve`, on a data directory
//! next to the build; each of its clients has a real WebSocket from this process. The floor is the adapter of
//! Iris without anything around it: where processor time is compared it is this program a third time.
//!
//! Names of groups (the modules here) choose what is measured. With `--quick` everything is measured once
//! where it else is several times: a look and no result. Ends with 1 when the median of a figure misses its
//! target. Needs Linux for `/proc`, and a machine that does nothing else.
//!
//! How fast the adapters read is in the bench `wires` of `iris-llm`, what an idle session costs in the
//! group `sessions` of the bench `figures`.

#[path = "../figures/commit.rs"]
mod commit;
#[path = "../figures/conversation.rs"]
#[expect(dead_code, reason = "the bench `figures` uses the rest")]
mod conversation;
mod crowd;
mod floor;
#[path = "../fanout/machine.rs"]
#[expect(dead_code, reason = "the bench `fanout` uses the rest")]
mod machine;
mod provider;
mod scene;
#[path = "../figures/server.rs"]
#[expect(dead_code, reason = "the bench `figures` uses the rest")]
mod server;
#[path = "../figures/table.rs"]
mod table;
mod turn;

use std::process::ExitCode;

use table::Figure;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    match words.as_slice() {
        [provider::ARGUMENT] => {
            provider::serve()?;
            return Ok(ExitCode::SUCCESS);
        }
        [floor::ARGUMENT, url] => {
            floor::run(url)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    table::print_machine()?;
    rlimit::increase_nofile_limit(rlimit::INFINITY)?;
    let wants = |group: &str| words.is_empty() || words.contains(&group);
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let rounds = |usual| if is_quick { 1 } else { usual };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut figures = Vec::new();
    if wants("turn") {
        figures.extend(runtime.block_on(turn::figures(rounds(turn::ROUNDS)))?);
    }
    if wants("crowd") {
        figures.extend(runtime.block_on(crowd::figures(rounds(crowd::ROUNDS)))?);
    }
    table::print(&figures)?;
    let all_met = figures.iter().all(Figure::is_met);
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
