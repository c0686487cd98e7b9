//! How commands end. Scripts rely on these codes: they are those of `sysexits.h` where that has one.

use iris_client::ClientError;
use iris_protocol::ErrorCode;

/// All that was asked for was done.
pub const OK: u8 = 0;
/// Something failed.
pub const FAILED: u8 = 1;
/// The command line asks for what cannot be, as clap itself says it.
pub const USAGE: u8 = 2;
/// The server cannot be reached or takes no work (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// Another process uses the data directory (`EX_TEMPFAIL`).
pub const LOCKED: u8 = 75;
/// The server refuses who asks, or nobody was there who could have said yes (`EX_NOPERM`).
pub const REFUSED: u8 = 77;
/// The configuration is wrong (`EX_CONFIG`).
pub const CONFIG: u8 = 78;
/// Interrupted by Ctrl-C: 128 and the number of the signal, as shells count.
pub const INTERRUPTED: u8 = 130;

/// How a command ends that a server answered like this.
pub(crate) fn of(error: &ClientError) -> u8 {
    match error {
        ClientError::Transport(_) | ClientError::Timeout => UNAVAILABLE,
        ClientError::Protocol(_) => FAILED,
        ClientError::Api(_) | ClientError::Closed { .. } => match error.code() {
            ErrorCode::Unauthenticated | ErrorCode::TokenExpired | ErrorCode::Forbidden => REFUSED,
            ErrorCode::Overloaded | ErrorCode::ShuttingDown => UNAVAILABLE,
            ErrorCode::InvalidRequest
            | ErrorCode::UnknownOperation
            | ErrorCode::TokenInUrl
            | ErrorCode::NotFound
            | ErrorCode::MethodNotAllowed
            | ErrorCode::Conflict
            | ErrorCode::VersionConflict
            | ErrorCode::Gone
            | ErrorCode::PayloadTooLarge
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::BadHost
            | ErrorCode::IdempotencyConflict
            | ErrorCode::Locked
            | ErrorCode::RateLimited
            | ErrorCode::QuotaExceeded
            | ErrorCode::BudgetExceeded
            | ErrorCode::Cancelled
            | ErrorCode::Internal
            | ErrorCode::ProviderError
            | ErrorCode::ModelUnavailable
            | ErrorCode::ProjectCorrupt
            | ErrorCode::ReadOnly
            | ErrorCode::SandboxUnavailable
            | ErrorCode::DeadlineExceeded
            | ErrorCode::StorageFull => FAILED,
        },
    }
}

/// What to do about it; nothing where the failure says so itself.
pub(crate) fn next_step(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::Transport(_) => {
            Some("look whether the server runs (`iris serve`), or name another one with `--url`")
        }
        ClientError::Timeout => {
            Some("it may have been done all the same: look before you repeat it")
        }
        ClientError::Protocol(_) => None,
        ClientError::Api(_) | ClientError::Closed { .. } => match error.code() {
            ErrorCode::Unauthenticated | ErrorCode::TokenExpired => {
                Some("log in with `iris login`, or set `IRIS_TOKEN`")
            }
            ErrorCode::Forbidden => {
                Some("ask somebody who has the right, or log in as somebody else with `--email`")
            }
            ErrorCode::NotFound => Some("look at what there is with the `list` of the command"),
            ErrorCode::RateLimited | ErrorCode::Overloaded | ErrorCode::ShuttingDown => {
                Some("try again in a while")
            }
            ErrorCode::ModelUnavailable => Some("`iris model list` says which models there are"),
            ErrorCode::StorageFull => Some("make room on the disk of the server"),
            ErrorCode::Internal => Some("the log of the server says more"),
            ErrorCode::InvalidRequest
            | ErrorCode::UnknownOperation
            | ErrorCode::TokenInUrl
            | ErrorCode::MethodNotAllowed
            | ErrorCode::Conflict
            | ErrorCode::VersionConflict
            | ErrorCode::Gone
            | ErrorCode::PayloadTooLarge
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::BadHost
            | ErrorCode::IdempotencyConflict
            | ErrorCode::Locked
            | ErrorCode::QuotaExceeded
            | ErrorCode::BudgetExceeded
            | ErrorCode::Cancelled
            | ErrorCode::ProviderError
            | ErrorCode::ProjectCorrupt
            | ErrorCode::ReadOnly
            | ErrorCode::SandboxUnavailable
            | ErrorCode::DeadlineExceeded => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_codes_are_these() {
        let text = include_str!("../docs/operations.md");
        let (_, section) = text.split_once("### Exit codes").unwrap();
        let (section, _) = section.split_once("###").unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
        let codes = rows.filter_map(|row| row.split_once(" |")?.0.parse::<u8>().ok());
        let all = [OK, FAILED, USAGE, UNAVAILABLE, LOCKED, REFUSED, CONFIG, INTERRUPTED];
        assert_eq!(codes.collect::<Vec<_>>(), all);
    }
}
