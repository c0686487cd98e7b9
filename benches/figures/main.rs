//! The figures that Iris is held to, each measured next to what it is compared with in the same run.
//!
//! ```text
//! cargo bench -p iris --bench figures
//! cargo bench -p iris --bench figures -- storage
//! IRIS=path/to/iris cargo bench -p iris --bench figures -- process projects scrape
//! ```
//!
//! What supervision costs is measured in this process, beside plain actix. For everything else the server
//! is the real binary in a process of its own, on a data directory next to the build; each client of a
//! conversation has a real WebSocket from this process. A figure that loses events is an error, not a
//! figure.
//! Names of groups (the modules here) choose what is measured.
//! Ends with 1 when the median of a figure misses its target. Needs Linux for `/proc`, and a machine
//! that does nothing else: a busy processor is in every figure, and most of all in the last one.

mod access;
mod actors;
mod cancel;
mod commit;
mod conversation;
mod crowd;
mod files;
#[path = "../../actors/benches/supervision/idle.rs"]
mod idle;
mod logins;
mod mcp;
mod passivation;
mod process;
mod projects;
mod scrape;
mod server;
mod sessions;
mod storage;
mod table;
mod transfer;
mod turn;
#[path = "../fanout/wire.rs"]
mod wire;

use std::process::ExitCode;

use table::Figure;

fn main() -> anyhow::Result<ExitCode> {
    table::print_machine()?;
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |group: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == group);
    let mut figures = Vec::new();
    // First, because the memory of actors is that of this process.
    if wants("actors") {
        figures.extend(actors::figures()?);
    }
    if wants("process") {
        figures.extend(process::figures()?);
    }
    // The clients; the server has threads of its own.
    let runtime = tokio::runtime::Runtime::new()?;
    if wants("turn") {
        figures.extend(runtime.block_on(turn::figures())?);
    }
    if wants("mcp") {
        figures.extend(runtime.block_on(mcp::figures())?);
    }
    if wants("cancel") {
        figures.extend(runtime.block_on(cancel::figures())?);
    }
    if wants("passivation") {
        figures.extend(runtime.block_on(passivation::figures())?);
    }
    if wants("projects") {
        figures.extend(runtime.block_on(projects::figures())?);
    }
    if wants("scrape") {
        figures.extend(runtime.block_on(scrape::figures())?);
    }
    if wants("sessions") {
        figures.extend(runtime.block_on(sessions::figures())?);
    }
    if wants("crowd") {
        figures.extend(runtime.block_on(crowd::figures())?);
    }
    if wants("logins") {
        figures.extend(runtime.block_on(logins::figures())?);
    }
    if wants("access") {
        figures.extend(runtime.block_on(access::figures())?);
    }
    if wants("files") {
        figures.extend(runtime.block_on(files::figures())?);
    }
    if wants("transfer") {
        figures.extend(runtime.block_on(transfer::figures())?);
    }
    if wants("storage") {
        figures.extend(runtime.block_on(storage::figures())?);
    }
    table::print(&figures)?;
    let all_met = figures.iter().all(Figure::is_met);
    Ok(if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
