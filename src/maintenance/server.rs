//! `iris backup` and `iris restore`: the whole server.

use iris_backup::server::{
    Outcome, OwnDirectories, ServerKeys, ServerManifest, ServerSource, restore_server,
    verify_server, write_server,
};
use serde_json::json;

use super::data::{DataDir, now};
use super::output::Output;
use super::{BackupOptions, MaintenanceError, RestoreOptions};

pub(super) fn back_up(options: &BackupOptions) -> Result<(), MaintenanceError> {
    let data = DataDir::find(&options.place)?;
    let mut output = Output::new(options.place.manner);
    let keys = options.with_keys.then(|| ServerKeys {
        jwt: data.config.jwt_secret_file.clone(),
        master: data.config.master_key_file.clone(),
    });
    let source = ServerSource { data_dir: data.path, keys };
    let backup = output.watch(|| write_server(&source, &options.to, now()))?;
    tell(&backup.manifest, &mut output)?;
    let path = backup.directory.display();
    output.line(&format!("backup {path}"), &json!({ "backup": backup.directory }))?;
    output.end()
}

pub(super) fn restore(options: &RestoreOptions) -> Result<(), MaintenanceError> {
    let mut output = Output::new(options.manner);
    let Some(data_dir) = &options.data_dir else {
        let manifest = output.watch(|| verify_server(&options.from))?;
        tell(&manifest, &mut output)?;
        return output.end();
    };
    let own =
        if options.keep_directories { OwnDirectories::Kept } else { OwnDirectories::Collected };
    let manifest = output.watch(|| restore_server(&options.from, data_dir, own))?;
    tell(&manifest, &mut output)?;
    let path = data_dir.display();
    output.line(&format!("data directory {path}"), &json!({ "dataDir": data_dir }))?;
    output.end()
}

/// What is in a backup and what is not.
fn tell(manifest: &ServerManifest, output: &mut Output) -> Result<(), MaintenanceError> {
    for project in &manifest.projects {
        let id = &project.id;
        match &project.outcome {
            Outcome::Archived { seq, .. } => {
                let value = json!({ "project": id, "status": "archived", "seq": seq });
                output.done(&format!("ok      {id} at event {seq}"), &value)?;
            }
            Outcome::Absent => {
                let value = json!({ "project": id, "status": "absent" });
                output.line(&format!("absent  {id} was deleted meanwhile"), &value)?;
            }
            Outcome::Failed { reason } => {
                let value = json!({ "project": id, "status": "failed", "reason": reason });
                output.failed(&format!("failed  {id}: {reason}"), &value)?;
            }
        }
    }
    Ok(())
}
