//! `iris logs`: the supervision log of a server, one line a record, and on request as it grows.

use std::io::{self, Write};
use std::process::ExitCode;

use iris_client::{Client, SupervisionFollowOptions, SupervisionFollower, SupervisionUpdate};
use iris_protocol::{SupervisionKind, SupervisionList, SupervisionRecord};
use tokio::signal::ctrl_c;

use crate::remote::text::{json_line, record_words, utc, visible};
use crate::remote::{self, Remote, RemoteError, say};

/// Columns of the kind of a record.
const KIND_COLUMNS: usize = 10;

/// Which records, of which server.
#[derive(Clone, clap::Args)]
pub struct LogsOptions {
    /// The server.
    #[command(flatten)]
    pub remote: Remote,
    /// Go on with records as they come
    #[arg(long)]
    pub follow: bool,
    /// Only records of this actor and those under it
    #[arg(long)]
    pub path: Option<String>,
    /// Only records of this kind, such as `panicked`
    #[arg(long, value_parser = kind)]
    pub kind: Option<SupervisionKind>,
    /// All records after the one with this id, in place of the newest ones
    #[arg(long, value_name = "ID")]
    pub since: Option<u64>,
    /// Print each record as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs the command until all is printed, or for as long as somebody listens.
pub fn run(options: &LogsOptions) -> ExitCode {
    remote::block_on("logs", print(options))
}

async fn print(options: &LogsOptions) -> Result<(), RemoteError> {
    let client = options.remote.client().await?;
    let outcome = tokio::select! {
        outcome = print_with(&client, options) => outcome,
        interrupted = ctrl_c() => interrupted.map_err(RemoteError::from),
    };
    options.remote.leave(&client).await;
    outcome
}

async fn print_with(client: &Client, options: &LogsOptions) -> Result<(), RemoteError> {
    let mut wanted = SupervisionList {
        since: options.since,
        kind: options.kind,
        path: options.path.clone(),
        limit: None,
    };
    loop {
        let page = client.supervision(&wanted).await?;
        for record in &page.records {
            write(record, options.json)?;
        }
        wanted.since = page.records.last().map(|record| record.id).or(wanted.since);
        if !page.has_more || page.records.is_empty() {
            break;
        }
    }
    if options.follow {
        // Of an empty log everything is new.
        wanted.since = wanted.since.or(Some(0));
        follow(client, wanted, options.json).await?;
    }
    Ok(())
}

/// Prints what comes until the server refuses to tell more.
async fn follow(
    client: &Client,
    wanted: SupervisionList,
    is_json: bool,
) -> Result<(), RemoteError> {
    let options =
        SupervisionFollowOptions { records: wanted, ..SupervisionFollowOptions::default() };
    let mut follower = SupervisionFollower::start(client.clone(), options);
    let mut is_lost = false;
    loop {
        match follower.next().await? {
            SupervisionUpdate::Record(record) => write(&record, is_json)?,
            SupervisionUpdate::Live => is_lost = false,
            SupervisionUpdate::Polling { .. } => {}
            SupervisionUpdate::Reconnecting { reason, .. } => {
                // Once for each time that it is lost.
                if !is_lost {
                    say("logs", &format!("disconnected, retrying: {reason}"));
                }
                is_lost = true;
            }
        }
    }
}

/// Prints a record at once, whoever reads.
fn write(record: &SupervisionRecord, is_json: bool) -> io::Result<()> {
    let line = if is_json { json_line(record)? } else { line(record) };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A record for people: its id stands where `--since` wants it.
fn line(record: &SupervisionRecord) -> String {
    let (time, kind, path) = (utc(record.at), record.kind.as_str(), visible(&record.path));
    let (id, words) = (record.id, record_words(record));
    format!("{time} {id} {kind:<KIND_COLUMNS$} {path} {words}").trim_end().to_owned()
}

/// Reads the name of a kind.
fn kind(text: &str) -> Result<SupervisionKind, String> {
    let found = SupervisionKind::ALL.iter().find(|kind| kind.as_str() == text);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = SupervisionKind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("`{text}` is none of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use iris_protocol::ExitKind;

    use super::*;

    #[test]
    fn a_record_is_one_line_that_no_terminal_obeys() {
        let record = SupervisionRecord {
            id: 7,
            at: 951_782_400_000,
            kind: SupervisionKind::Stopped,
            path: "node/root\u{1b}[2J".to_owned(),
            actor_kind: "root".to_owned(),
            reason: Some(ExitKind::Killed),
            error: Some("a\nb".to_owned()),
            location: None,
            message: None,
            request_id: None,
            counts: BTreeMap::new(),
        };
        let expected = "2000-02-29T00:00:00.000Z 7 stopped    node/root\\u{1b}[2J reason=killed error=\"a\\nb\"";
        assert_eq!(line(&record), expected);
    }

    #[test]
    fn kinds_are_named_as_on_the_wire() {
        assert_eq!(kind("gaveUp"), Ok(SupervisionKind::GaveUp));
        let refused = kind("gone").unwrap_err();
        assert!(refused.starts_with("`gone` is none of started, stopped, "), "{refused}");
    }
}
