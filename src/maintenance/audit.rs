//! `iris audit`: the audit of a data directory, with or without a server on it.

use iris_store::maintenance::{audit_after, check_audit};
use iris_store::root::AuditHead;
use serde_json::{json, to_value};

use super::data::DataDir;
use super::output::{Manner, Output};
use super::{AuditVerb, MaintenanceError, Place};

/// Records that are read at a time.
const RECORDS_AT_ONCE: u32 = 1_000;

pub(super) fn run(verb: &AuditVerb, place: &Place) -> Result<(), MaintenanceError> {
    let data = DataDir::find(place)?;
    match verb {
        AuditVerb::Verify { head } => verify(&data, head.as_deref(), place.manner),
        AuditVerb::Export { after } => export(&data, *after),
    }
}

fn verify(data: &DataDir, head: Option<&str>, manner: Manner) -> Result<(), MaintenanceError> {
    let head = head.map(parse_head).transpose()?;
    let path = data.root();
    let verdict = check_audit(&path, head.as_ref())
        .map_err(|source| MaintenanceError::Database { path: path.clone(), source })?;
    let (records, head) = (verdict.records, verdict.head.to_string());
    let mut output = Output::new(manner);
    match verdict.damage {
        None => {
            let text = format!("ok      {records} records, the head is {head}");
            output.done(&text, &json!({ "status": "ok", "records": records, "head": head }))?;
        }
        Some(damage) => {
            let value = json!({ "status": "failed", "records": records, "head": head,
                "reason": damage.to_string() });
            output.failed(&format!("failed  {damage}; sound up to {head}"), &value)?;
        }
    }
    output.end()
}

/// Prints every record behind a number as a line of JSON, oldest first.
fn export(data: &DataDir, mut after: u64) -> Result<(), MaintenanceError> {
    let (path, output) = (data.root(), Output::new(Manner { json: true, quiet: true }));
    loop {
        let records = audit_after(&path, after, RECORDS_AT_ONCE)
            .map_err(|source| MaintenanceError::Database { path: path.clone(), source })?;
        let Some(last) = records.last() else { return Ok(()) };
        after = last.id;
        for record in &records {
            let value = to_value(record).map_err(|error| MaintenanceError::Output(error.into()))?;
            output.line("", &value)?;
        }
    }
}

fn parse_head(text: &str) -> Result<AuditHead, MaintenanceError> {
    let refused = || {
        MaintenanceError::Usage("`--head` must be a number, a colon and 64 hex digits".to_owned())
    };
    let (id, hash) = text.split_once(':').ok_or_else(refused)?;
    let id = id.parse().map_err(|_| refused())?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash {
        return Err(refused());
    }
    Ok(AuditHead { id, hash: hash.to_ascii_lowercase() })
}
