//! `iris db`: the databases as files.

use std::fs;
use std::path::{Path, PathBuf};

use iris_protocol::ProjectId;
use iris_store::maintenance::{
    check_project, check_root, project_facts, root_version, vacuum_project, vacuum_root,
};
use iris_store::{ProjectDatabase, RootDatabase, StoreError};
use serde_json::{Map, Value, json};

use super::data::{DataDir, now};
use super::output::{Output, bytes_text};
use super::{DatabaseVerb, MaintenanceError, Place};

/// One database and whose it is; the root database for none.
type Subject = (PathBuf, Option<ProjectId>);

pub(super) fn run(
    verb: DatabaseVerb,
    project: Option<&ProjectId>,
    place: &Place,
) -> Result<(), MaintenanceError> {
    let data = DataDir::find(place)?;
    let _lock = match verb {
        DatabaseVerb::Check => None,
        DatabaseVerb::Migrate | DatabaseVerb::Vacuum => Some(data.lock()?),
    };
    let mut output = Output::new(place.manner);
    // Even when the root database is damaged, what is wrong with it should be said like the rest.
    if project.is_none() {
        work(verb, &(data.root(), None), &mut output)?;
    }
    let ids: Vec<ProjectId> = project.cloned().into_iter().collect();
    let projects = data.listed(&ids)?;
    for (done, project) in projects.iter().enumerate() {
        output.at(done, projects.len(), verb.doing());
        let subject = (data.source(project).database, Some(project.id.clone()));
        work(verb, &subject, &mut output)?;
    }
    if project.is_none() && matches!(verb, DatabaseVerb::Check) {
        let known: Vec<&str> = projects.iter().map(|project| project.id.as_str()).collect();
        tell_strangers(&data, &known, &output)?;
    }
    output.end()
}

impl DatabaseVerb {
    /// What is being done, for who waits.
    fn doing(self) -> &'static str {
        match self {
            Self::Migrate => "migrating databases",
            Self::Check => "reading databases",
            Self::Vacuum => "compacting databases",
        }
    }
}

fn work(
    verb: DatabaseVerb,
    subject: &Subject,
    output: &mut Output,
) -> Result<(), MaintenanceError> {
    let (path, id) = subject;
    let worked = match verb {
        DatabaseVerb::Check => check(path, id.as_ref()),
        DatabaseVerb::Migrate => migrate(path, id.as_ref()),
        DatabaseVerb::Vacuum => vacuum(path, id.as_ref()),
    };
    let name = id.as_ref().map_or("root", ProjectId::as_str);
    match worked {
        Ok((text, facts)) => {
            let mut value = Map::new();
            value.insert("database".to_owned(), json!(name));
            value.insert("status".to_owned(), json!("ok"));
            value.extend(facts.into_iter().map(|(key, fact)| (key.to_owned(), json!(fact))));
            output.done(&format!("ok      {name} {text}"), &Value::Object(value))
        }
        Err(error) => {
            let reason = explained(&error);
            let value = json!({ "database": name, "status": "failed", "reason": reason });
            output.failed(&format!("failed  {name}: {reason}"), &value)
        }
    }
}

/// With the causes, which hold what the disk or SQLite said.
fn explained(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text
}

/// What was done, for people, and in numbers.
type Told = Result<(String, Vec<(&'static str, u64)>), StoreError>;

fn check(path: &Path, id: Option<&ProjectId>) -> Told {
    let version = match id {
        Some(id) => check_project(path, Some(id))?.schema_version,
        None => check_root(path)?,
    };
    Ok((format!("schema version {version}"), vec![("schemaVersion", version.into())]))
}

fn migrate(path: &Path, id: Option<&ProjectId>) -> Told {
    let version = || match id {
        Some(_) => Ok::<_, StoreError>(project_facts(path)?.schema_version),
        None => root_version(path),
    };
    let before = version()?;
    match id {
        Some(id) => ProjectDatabase::open(path, id, |_| {})?.close(),
        None => RootDatabase::open_or_create(path, now())?.close(),
    }
    let after = version()?;
    let text = if before == after {
        format!("has schema version {after} already")
    } else {
        format!("from schema version {before} to {after}")
    };
    Ok((text, vec![("from", before.into()), ("to", after.into())]))
}

fn vacuum(path: &Path, id: Option<&ProjectId>) -> Told {
    let size = || Ok::<_, StoreError>(fs::metadata(path)?.len());
    let before = size()?;
    match id {
        Some(id) => vacuum_project(path, id)?,
        None => vacuum_root(path)?,
    }
    let after = size()?;
    let text = format!("from {} to {}", bytes_text(before), bytes_text(after));
    Ok((text, vec![("bytesBefore", before), ("bytesAfter", after)]))
}

/// Directories that no project refers to: what a creation or an import left that was cut off.
fn tell_strangers(data: &DataDir, known: &[&str], output: &Output) -> Result<(), MaintenanceError> {
    let Ok(entries) = fs::read_dir(data.projects()) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !known.iter().any(|id| name == **id) {
            let path = entry.path();
            let text = format!("unknown {} belongs to no project", path.display());
            output.line(&text, &json!({ "unknown": path }))?;
        }
    }
    Ok(())
}
