//! The actors once, as a table or as JSON, for scripts and for outputs that are no terminal.

use std::io::{self, Write};

use iris_protocol::{ActorInfo, ActorPage, ActorState};

use super::draw::blocked_words;
use crate::remote::RemoteError;
use crate::remote::text::{bytes, json_line, span, visible};

/// Prints a page on standard output.
pub(super) fn print(page: &ActorPage, is_json: bool) -> Result<(), RemoteError> {
    let text = if is_json { json_line(page).map_err(io::Error::from)? + "\n" } else { table(page) };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// One line about the process, one for each thread that is blocked, one for each actor.
pub(super) fn table(page: &ActorPage) -> String {
    let node = &page.node;
    let draining = if node.draining { ", draining" } else { "" };
    let mut lines = vec![format!(
        "iris {}, up {}, {}, {} threads, {} records dropped{draining}",
        visible(&node.version),
        span(node.uptime_ms),
        bytes(node.rss_bytes),
        node.arbiters.len(),
        node.records_dropped
    )];
    let blocked = node.arbiters.iter().filter(|arbiter| arbiter.blocked_ms > 0);
    lines.extend(blocked.map(|arbiter| format!("blocked: {}", blocked_words(arbiter))));
    let paths: Vec<String> = page.actors.iter().map(|actor| visible(&actor.path)).collect();
    let width = paths.iter().map(|path| path.chars().count()).max().unwrap_or(0).max(5);
    let heads = ["STATE", "DEPTH", "LIMIT", "HANDLED", "FAILED", "RESTARTS", "REFUSED"];
    let heads = heads.map(|head| format!(" {head:>10}")).concat();
    lines.push(format!("{:<width$}{heads} WORKS ON", "ACTOR"));
    for (path, actor) in paths.iter().zip(&page.actors) {
        lines.push(format!("{path:<width$}{}", figures(actor)).trim_end().to_owned());
    }
    lines.join("\n") + "\n"
}

fn figures(actor: &ActorInfo) -> String {
    let state = match actor.state {
        ActorState::Running => "running",
        ActorState::Restarting => "restarting",
        ActorState::Stopping => "stopping",
    };
    let (depth, limit) = (actor.mailbox_depth, actor.mailbox_limit);
    let counts = [depth, limit, actor.handled, actor.failed, actor.restarts, actor.refused];
    let counts = counts.map(|count| format!(" {count:>10}")).concat();
    let work = actor.current.iter().map(|work| {
        let stuck = if work.stuck { " stuck" } else { "" };
        format!("{} {}{stuck}", visible(&work.name), span(work.age_ms))
    });
    format!(" {state:>10}{counts} {}", work.collect::<Vec<_>>().join(", "))
}
