//! Everything in Iris that has a mailbox, and the supervision of it.
//!
//! Read in this order: `supervision` starts every actor; `dispatch` is the one way from a caller's
//! command to the actors; `directory` finds a project; `project` owns its database, its order of
//! events and its rooms; `session` owns one conversation; `orchestrator` performs one run;
//! `backups` has work with archives done; `metrics` is what operators watch; `connection` is one client; `owner` is what passes between a connection and a project. Deliberately absent: HTTP, JSON routes, SQL, providers.

mod agents;
mod asking;
mod backups;
mod budgets;
mod capturing;
mod choices;
pub mod connection;
mod directory;
pub mod dispatch;
mod files;
mod git;
mod leftovers;
mod line;
mod logins;
mod mail;
mod mcp;
mod metrics;
mod node;
mod orchestrator;
mod origin;
mod outbox;
pub mod owner;
mod pace;
mod permissions;
pub mod project;
mod provider_keys;
mod rates;
mod recorder;
mod reloading;
mod root;
mod rotation;
mod services;
mod session;
pub mod supervision;
mod threads;
mod tickets;
mod toolbox;
mod write;

pub use backups::{BackupSettings, NewFile, check_about, remove_backups, settle};
pub use budgets::BudgetSettings;
pub use directory::Directory;
pub use git::{GitSettings, Reach};
pub use line::{Line, LineLimits, Shares};
pub use mail::{MailError, Mailer, SmtpSettings};
pub use mcp::McpHost;
pub use metrics::Metrics;
pub use node::{Node, NodeError};
pub use origin::{Origin, Origins};
pub use pace::Pace;
pub use project::PresenceSettings;
pub use rates::{Rate, RateSettings, UnknownSocket};
pub use reloading::Changeable;
pub use root::Root;
pub use rotation::KEY_SETTLES;
pub use services::{
    AuditSettings, ContextSettings, FileSettings, LogControl, Registration, ResumePolicy, Services,
    Settings, SystemClock, SystemIds,
};
pub use threads::Threads;
pub use tickets::TicketUse;
pub use write::{Write, record, write};
