//! Which agents stood in files when somebody looked last, so that each change of one is told once.

use std::collections::BTreeMap;

use iris_protocol::{Agent, Event};
use rusqlite::Connection;

use super::{log, queries};
use crate::{Command, StoreError, WriteTx};

const ALL: &str = "SELECT name, hash FROM file_agents ORDER BY name";

/// Notes which agents stand in files, and tells of those that are other ones than when somebody looked last,
/// or gone. Those whose names are taken by agents of the project are noted and not told of.
#[derive(Debug, Clone)]
pub struct TellFileAgents {
    /// Each with a hash of its file.
    pub agents: Vec<(String, Agent)>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for TellFileAgents {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let mut known: BTreeMap<String, String> = all(tx.conn())?.into_iter().collect();
        for (hash, agent) in self.agents {
            if known.remove(&agent.name).as_ref() == Some(&hash) {
                continue;
            }
            let sql = "INSERT INTO file_agents (name, hash) VALUES (?1, ?2)
                       ON CONFLICT (name) DO UPDATE SET hash = ?2";
            tx.conn().prepare_cached(sql)?.execute([&agent.name, &hash])?;
            tell(tx, agent.name.clone(), Some(agent), self.at)?;
        }
        for name in known.into_keys() {
            tx.conn()
                .prepare_cached("DELETE FROM file_agents WHERE name = ?1")?
                .execute([&name])?;
            tell(tx, name, None, self.at)?;
        }
        Ok(())
    }
}

fn tell(
    tx: &mut WriteTx<'_>,
    name: String,
    agent: Option<Agent>,
    at: i64,
) -> Result<(), StoreError> {
    if queries::agent(tx.conn(), &name)?.is_some() {
        return Ok(());
    }
    log::in_project(tx, at, None, &Event::AgentUpdated { name, agent })
}

/// The names of the agents that stood in files, each with the hash of its file; by name.
pub(super) fn all(conn: &Connection) -> Result<Vec<(String, String)>, StoreError> {
    queries::all(conn, ALL, [], |row| Ok((row.get(0)?, row.get(1)?)))
}
