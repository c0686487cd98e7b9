//! `iris keys rotate-offline`: a new master key in the place of the one of now. Both stand there until the server
//! has sealed everything anew.

use iris_auth::{AuthError, ChangingKey};
use iris_protocol::Operation;
use iris_store::root::RecordAudit;
use serde_json::json;

use super::data::{DataDir, Root, now};
use super::output::Output;
use super::{MaintenanceError, Place};

pub(super) fn rotate(place: &Place) -> Result<(), MaintenanceError> {
    let data = DataDir::find(place)?;
    let _lock = data.lock()?;
    let key = ChangingKey::new(data.config.master_key_file.clone());
    audit(&data)?;
    key.change().map_err(|error| refused(&error))?;
    let mut output = Output::new(place.manner);
    let previous = key.previous_path();
    let text = format!(
        "a new master key is in place; leave `{}` where it is: the server removes it when it has sealed \
         everything anew",
        previous.display()
    );
    output.done(&text, &json!({ "status": "ok", "previous": previous }))?;
    output.end()
}

/// By nobody who is known: whoever may write to the data directory.
fn audit(data: &DataDir) -> Result<(), MaintenanceError> {
    let root = Root::open(data)?;
    let audit = RecordAudit {
        at: now(),
        action: Operation::KeysRotate.name().to_owned(),
        target: "master key".to_owned(),
        details: json!({ "commandLine": true }),
        ..RecordAudit::default()
    };
    root.write(audit)?;
    root.close();
    Ok(())
}

fn refused(error: &AuthError) -> MaintenanceError {
    let mut text = error.to_string();
    if matches!(error, AuthError::KeyChanging { .. }) {
        text += ": start the server, which finishes the change";
    }
    MaintenanceError::Refused(text)
}
