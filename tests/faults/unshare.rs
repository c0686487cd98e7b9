//! The command inside mounts of its own.

use std::process::{Command, Stdio};

/// Wraps a command so that `script` runs before it in a new namespace of users and mounts; the script
/// ends with `exec "$@"`, so the process keeps its id.
pub(crate) fn inside(command: &Command, script: &str) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    wrapped.arg(command.get_program()).args(command.get_args()).env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        wrapped.env("PATH", path);
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    wrapped.stdin(Stdio::null()).stdout(Stdio::piped());
    wrapped
}

/// Whether this system lets anybody do so.
pub(crate) fn is_allowed() -> bool {
    let tried = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}
