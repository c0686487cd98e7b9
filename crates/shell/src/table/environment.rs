//! Variables that may be set for a command without a question.

/// Names that change how much and in which form programs print, and nothing else.
const HARMLESS: &[&str] = &[
    "CARGO_INCREMENTAL",
    "CARGO_TERM_COLOR",
    "CARGO_TERM_PROGRESS_WHEN",
    "CI",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "COLUMNS",
    "FORCE_COLOR",
    "LANG",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LINES",
    "NO_COLOR",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "RUST_TEST_THREADS",
    "TERM",
];

/// Whether `assignment`, as it is written, is one of a harmless name to a value that is no path.
pub(crate) fn is_harmless(assignment: &str) -> bool {
    let Some((name, value)) = assignment.split_once('=') else { return false };
    // A path could name a file of the project, a quote or a dollar hides what the value is.
    let is_value = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ',' | '=');
    HARMLESS.contains(&name) && value.chars().all(|c| is_value(c) || c == ':') && value != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_names_with_simple_values_pass() {
        for harmless in ["CI=1", "NO_COLOR=", "LC_ALL=C.UTF-8", "RUST_LOG=iris=debug,a::b=info"] {
            assert!(is_harmless(harmless), "{harmless}");
        }
        for other in
            ["PATH=x", "LD_PRELOAD=x", "GIT_PAGER=x", "BASH_ENV=x", "CI=$x", "TERM=../x", "CI+=1"]
        {
            assert!(!is_harmless(other), "{other}");
        }
    }
}
