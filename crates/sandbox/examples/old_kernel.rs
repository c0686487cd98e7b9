//! A launcher on a kernel that lacks something, for tests. What that is stands in the name of the executable
//! after the last dash: `landlock`, `seccomp`, `namespaces` or `mounts`.

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use nix::libc;

    let executable = std::env::current_exe().unwrap_or_default();
    let name = executable.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (call, errno) = match name.rsplit('-').next().unwrap_or_default() {
        "landlock" => (444, libc::ENOSYS), // landlock_create_ruleset
        "seccomp" => (libc::SYS_seccomp, libc::ENOSYS),
        "namespaces" => (libc::SYS_unshare, libc::EPERM),
        "mounts" => (libc::SYS_fsopen, libc::EPERM),
        _ => return ExitCode::FAILURE,
    };
    match lose(call, errno) {
        Some(()) => iris_sandbox::launcher_main(),
        None => ExitCode::FAILURE,
    }
}

/// Has a call fail from now on.
#[cfg(target_os = "linux")]
fn lose(call: i64, errno: i32) -> Option<()> {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

    let arch = std::env::consts::ARCH.try_into().ok()?;
    let fail = SeccompAction::Errno(errno.unsigned_abs());
    let calls = [(call, Vec::new())].into();
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, fail, arch).ok()?;
    let program: BpfProgram = filter.try_into().ok()?;
    apply_filter(&program).ok()
}
