//! The figures that Iris is held to, each measured next to what it is compared with in the same run.
//!
//! ```text
//! cargo bench -p iris --bench figures
//! ```
//!
//! What supervision costs is measured in this process, beside plain actix. For everything else the server
//! is the real binary in a process of its own, on a data directory next to the build; each client of a
//! conversation has a real WebSocket from this process. A figure that loses events is an error, not a
//! figure.
//! Ends with 1 when the median of a figure misses its target. Needs Linux for `/proc`, and a machine
//! that does nothing else: a busy processor is in every figure, and most of all in the last one.

mod actors;
mod commit;
mod conversation;
mod crowd;
#[path = "../../actors/benches/supervision/idle.rs"]
mod idle;
mod passivation;
mod process;
mod server;
mod sessions;
mod storage;
mod table;
mod turn;

use std::process::ExitCode;

use table::Figure;

fn main() -> anyhow::Result<ExitCode> {
    table::print_machine()?;
    // First, because the memory of actors is that of this process.
    let mut figures = actors::figures()?;
    figures.extend(process::figures()?);
    // The clients; the server has threads of its own.
    let runtime = tokio::runtime::Runtime::new()?;
    figures.extend(runtime.block_on(turn::figures())?);
    figures.extend(runtime.block_on(passivation::figures())?);
    figures.extend(runtime.block_on(sessions::figures())?);
    figures.extend(runtime.block_on(crowd::figures())?);
    figures.extend(runtime.block_on(storage::figures())?);
    table::print(&figures)?;
    let all_met = figures.iter().all(Figure::is_met);
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
