//! What can be said of a request without asking the kernel.

use std::path::{Component, Path};

use crate::STDIN_BYTES_MAX;
use crate::error::SandboxError;
use crate::request::{Command, Request};

/// Most bytes of all arguments and variables together; Linux takes a quarter of the stack limit of
/// 8 MiB.
const ARGUMENTS_BYTES_MAX: usize = 1024 * 1024;

/// # Errors
///
/// `InvalidRequest`.
pub(crate) fn check(request: &Request) -> Result<(), SandboxError> {
    let invalid = |reason: String| Err(SandboxError::InvalidRequest { reason });
    let texts: Vec<&str> = match &request.command {
        Command::Arguments(arguments) => arguments.iter().map(String::as_str).collect(),
        Command::Shell(line) => vec![line],
    };
    if texts.first().is_none_or(|first| first.is_empty()) {
        return invalid("there is nothing to run".to_owned());
    }
    let variables = request.env.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let all: Vec<&str> = texts.into_iter().chain(variables).collect();
    if all.iter().any(|text| text.contains('\0')) {
        return invalid("an argument or variable contains a null character".to_owned());
    }
    let bytes: usize = all.iter().map(|text| text.len()).sum();
    if bytes > ARGUMENTS_BYTES_MAX {
        return invalid(format!("{bytes} bytes of arguments and variables are too many"));
    }
    if let Some((name, _)) =
        request.env.iter().find(|(name, _)| name.is_empty() || name.contains('='))
    {
        return invalid(format!("`{name}` cannot be the name of a variable"));
    }
    if request.stdin.as_ref().is_some_and(|bytes| bytes.len() > STDIN_BYTES_MAX) {
        return invalid(format!("more than {STDIN_BYTES_MAX} bytes of input"));
    }
    for path in [&request.project, &request.scratch] {
        if !is_absolute_and_plain(path) {
            return invalid(format!("`{}` is not a plain absolute path", path.display()));
        }
    }
    let (project, scratch) = (&request.project, &request.scratch);
    if project.starts_with(scratch) || scratch.starts_with(project) {
        return invalid("project and scratch directory lie in one another".to_owned());
    }
    let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !request.workdir.components().all(is_inside) {
        return invalid(format!("`{}` leaves the project", request.workdir.display()));
    }
    Ok(())
}

/// Refuses what is no matter of a command that is talked to.
///
/// # Errors
///
/// `InvalidRequest`.
pub(crate) fn check_talk(request: &Request) -> Result<(), SandboxError> {
    if request.stdin.is_some() || request.progress.is_some() || request.cancel.is_some() {
        let reason = "a command that is talked to has pipes of its own".to_owned();
        return Err(SandboxError::InvalidRequest { reason });
    }
    Ok(())
}

/// Absolute, without `..`, not the root itself, and text, which is how it gets to the launcher.
fn is_absolute_and_plain(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && path.file_name().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && path.to_str().is_some_and(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Request);

    fn refused(change: Change) -> String {
        let mut request = Request::new(Command::Shell("true".into()), "/p".into(), "/s".into());
        change(&mut request);
        match check(&request) {
            Err(SandboxError::InvalidRequest { reason }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_reason() {
        let cases: [(Change, &str); 15] = [
            (|r| r.command = Command::Arguments(vec![]), "nothing to run"),
            (|r| r.command = Command::Shell(String::new()), "nothing to run"),
            (|r| r.command = Command::Arguments(vec!["a\0".into()]), "null character"),
            (|r| r.command = Command::Shell("x".repeat(2 << 20)), "too many"),
            (|r| r.env = vec![("A".into(), "\0".into())], "null character"),
            (|r| r.env = vec![("A=B".into(), String::new())], "`A=B` cannot be"),
            (|r| r.env = vec![(String::new(), String::new())], "`` cannot be"),
            (|r| r.stdin = Some(vec![0; STDIN_BYTES_MAX + 1]), "bytes of input"),
            (|r| r.project = "relative".into(), "not a plain absolute path"),
            (|r| r.project = "/".into(), "not a plain absolute path"),
            (|r| r.scratch = "/s/../p".into(), "not a plain absolute path"),
            (|r| r.scratch = "/p/tmp".into(), "lie in one another"),
            (|r| r.project = "/s/x".into(), "lie in one another"),
            (|r| r.workdir = "../q".into(), "leaves the project"),
            (|r| r.workdir = "/etc".into(), "leaves the project"),
        ];
        for (change, expected) in cases {
            let reason = refused(change);
            assert!(reason.contains(expected), "`{reason}` does not say `{expected}`");
        }
    }

    #[test]
    fn the_largest_input_and_a_deep_working_directory_are_fine() {
        let mut request = Request::new(Command::Shell("true".into()), "/p".into(), "/s".into());
        request.stdin = Some(vec![0; STDIN_BYTES_MAX]);
        request.workdir = "./a/b".into();
        assert!(check(&request).is_ok());
    }
}
