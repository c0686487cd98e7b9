//! SQLite: root and project databases, writer threads, read pools, migrations.
//!
//! Read in this order: [`Command`] and [`Writer`] (how anything changes), [`Reader`] (how anything
//! is read), then the two databases, [`project`] and [`root`]. Deliberately absent: clocks and
//! random numbers (times and ids are fields of the commands), rights, and any decision about what
//! an agent does next.

mod column;
mod crash;
mod database;
mod error;
mod reader;
mod writer;

pub mod project;
pub mod root;

pub use crash::{CrashPoint, crash_point};
pub use error::StoreError;
pub use project::{ProjectDatabase, ProjectReader};
pub use reader::Reader;
pub use root::{RootDatabase, RootReader};
pub use writer::{
    Command, Committed, Durability, IdempotencyKey, QUEUED_COMMANDS_MAX, Receipt, StoredEvent,
    WriteContext, WriteTx, Writer,
};
