//! SQLite: root and project databases, writer threads, read pools, migrations.
//!
//! Read in this order: [`Command`] and [`Writer`] (how anything changes), [`Reader`] (how anything
//! is read), then the two databases, [`project`] and [`root`], and [`maintenance`], which works on
//! whole files. Deliberately absent: clocks and random numbers (times and ids are fields of the
//! commands), rights, and any decision about what an agent does next.

mod column;
mod condition;
mod crash;
mod database;
mod error;
mod figures;
mod head;
mod migration;
#[cfg(test)]
mod plan_tests;
mod reader;
mod storage;
mod totals;
mod wal;
mod writer;

pub mod maintenance;
pub mod project;
pub mod root;

pub use crash::{CrashPoint, crash_point};
pub use error::StoreError;
pub use figures::{Distribution, WriterFigures};
pub use project::{ProjectDatabase, ProjectReader};
pub use reader::{Reader, State};
pub use root::{RootDatabase, RootReader};
pub use storage::{Storage, StorageStatus, available as disk_available};
pub use totals::Days;
pub use writer::{
    Command, Committed, Durability, FromReserve, IdempotencyKey, QUEUED_COMMANDS_MAX, Receipt,
    StoredEvent, WhenFull, WriteContext, WriteTx, Writer,
};
