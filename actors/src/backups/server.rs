//! A backup of the whole server, in a directory of its own.

use std::path::Path;

use iris_protocol::{ApiError, ServerBackup, UserId};

use super::archiver::Task;
use super::desk::Desk;

/// Backs up the whole server.
pub(crate) struct BackUpServer {
    pub(crate) by: UserId,
}

impl Task for BackUpServer {
    const NAME: &'static str = "back up the server";

    type Output = ServerBackup;

    fn lane(&self) -> String {
        "server".to_owned()
    }

    async fn run(self, desk: Desk) -> Result<ServerBackup, ApiError> {
        let _ = desk;
        Err(ApiError::not_found("backup"))
    }
}

/// Those of the data directory, newest first. Waits for the disk.
pub(crate) fn server_backups(data_dir: &Path) -> Vec<ServerBackup> {
    let _ = data_dir;
    Vec::new()
}
