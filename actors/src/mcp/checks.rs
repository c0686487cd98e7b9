//! Whether an MCP server can be configured like that: pure, but for what the egress client says of headers.

use std::collections::BTreeMap;

use iris_egress::Request;
use iris_mcp::oauth::is_safe;
use iris_protocol::{ApiError, McpTransport};

/// Longest name of a server, in bytes.
const NAME_BYTES_MAX: usize = 32;
/// Most arguments of a program, and most bytes of one of them.
const ARGUMENTS_MAX: usize = 64;
const ARGUMENT_BYTES_MAX: usize = 4 * 1024;
/// Most variables of a program, and most bytes of the value of one.
const VARIABLES_MAX: usize = 32;
const VARIABLE_BYTES_MAX: usize = 4 * 1024;
/// Longest name of a variable, in bytes.
const VARIABLE_NAME_BYTES_MAX: usize = 64;
/// Most headers, plain and secret together, and most bytes of the value of one.
const HEADERS_MAX: usize = 16;
const HEADER_BYTES_MAX: usize = 4 * 1024;
/// How long a server may have to start, in milliseconds.
const INITIALIZE_MS: (u64, u64, u64) = (100, 30_000, 120_000);
/// How long one answer may take, in milliseconds.
const REQUEST_MS: (u64, u64, u64) = (100, 60_000, 600_000);

/// Variables that loaders, shells, interpreters and their tools read to find or run code, or that the sandbox
/// sets. What ends with `*` is a beginning.
const VARIABLES_REFUSED: &[&str] = &[
    "BASHOPTS",
    "BASH_*",
    "BROWSER",
    "BUN_*",
    "CDPATH",
    "CLASSPATH",
    "COMSPEC",
    "DENO_*",
    "DOTNET_*",
    "DYLD_*",
    "EDITOR",
    "ELECTRON_*",
    "ENV",
    "FPATH",
    "GCONV_PATH",
    "GEM_*",
    "GIT_*",
    "GLIBC_*",
    "GLOBIGNORE",
    "HOME",
    "HOSTALIASES",
    "IFS",
    "JAVA_*",
    "JDK_*",
    "LD_*",
    "LESSOPEN",
    "LESSCLOSE",
    "LOCPATH",
    "LUA_*",
    "MALLOC_*",
    "MANPAGER",
    "NLSPATH",
    "NODE_*",
    "NPM_*",
    "OPENSSL_*",
    "PAGER",
    "PATH",
    "PERL*",
    "PHPRC",
    "PHP_*",
    "PIP_*",
    "POSIXLY_CORRECT",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHON*",
    "RESOLV_*",
    "RES_OPTIONS",
    "RUBY*",
    "RUST_*",
    "SHELL",
    "SHELLOPTS",
    "SSH_*",
    "TCL*",
    "TERMCAP",
    "TERMINFO*",
    "TMPDIR",
    "UV_*",
    "VISUAL",
    "ZDOTDIR",
];

/// Headers that belong to the protocol or carry what is to be kept secret.
const HEADERS_REFUSED: &[&str] = &[
    "accept",
    "content-type",
    "cookie",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
];

pub(super) fn invalid(message: impl Into<String>, reason: &str) -> ApiError {
    ApiError::invalid(message).reason(reason)
}

/// Refuses names by which a server could not be told from another one in the name of a tool.
pub(crate) fn check_name(name: &str) -> Result<(), ApiError> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    if begins_well && name.len() <= NAME_BYTES_MAX && name.chars().all(is_plain) {
        return Ok(());
    }
    let message = format!(
        "`name` must be 1 to {NAME_BYTES_MAX} lower-case letters, digits and `-`, beginning with a letter"
    );
    Err(invalid(message, "invalid_name"))
}

/// Refuses a transport that makes no sense or is more than a server needs.
pub(crate) fn check_transport(transport: &McpTransport) -> Result<(), ApiError> {
    match transport {
        McpTransport::Stdio { command, args, env } => check_program(command, args, env),
        McpTransport::Http { url, headers } => {
            let refused = |message: String| invalid(message, "invalid_url");
            iris_egress::parse_url(url).map_err(|error| refused(error.to_string()))?;
            check_headers("headers", headers)?;
            if headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")) {
                let message = "`authorization` is a secret: name it in `secretHeaders`";
                return Err(invalid(message, "invalid_header"));
            }
            Ok(())
        }
    }
}

fn check_program(
    command: &str,
    args: &[String],
    env: &BTreeMap<String, String>,
) -> Result<(), ApiError> {
    let refused = |message: String| Err(invalid(message, "invalid_command"));
    if command.is_empty() || args.len() > ARGUMENTS_MAX {
        return refused(format!(
            "`command` must not be empty, and has at most {ARGUMENTS_MAX} `args`"
        ));
    }
    for text in std::iter::once(command).chain(args.iter().map(String::as_str)) {
        if text.len() > ARGUMENT_BYTES_MAX || text.contains('\0') {
            return refused(format!(
                "`command` and each of `args` have at most {ARGUMENT_BYTES_MAX} bytes, none of them null"
            ));
        }
    }
    if env.len() > VARIABLES_MAX {
        return Err(invalid(format!("`env` has at most {VARIABLES_MAX} variables"), "invalid_env"));
    }
    env.iter().try_for_each(|(name, value)| check_variable(name, value))
}

fn check_variable(name: &str, value: &str) -> Result<(), ApiError> {
    let refused = |message: String| Err(invalid(message, "invalid_env"));
    let is_word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let begins_well = name.starts_with(|c: char| c.is_ascii_uppercase());
    if !begins_well || name.len() > VARIABLE_NAME_BYTES_MAX || !name.chars().all(is_word) {
        let name: String = name.chars().take(VARIABLE_NAME_BYTES_MAX).collect();
        return refused(format!(
            "`{name}` is no name of a variable: upper-case letters, digits and `_`, beginning with a letter"
        ));
    }
    if VARIABLES_REFUSED.iter().any(|pattern| matches(pattern, name)) {
        return refused(format!(
            "the variable `{name}` may decide which code runs and cannot be set"
        ));
    }
    if value.len() > VARIABLE_BYTES_MAX || value.contains('\0') {
        return refused(format!(
            "the value of `{name}` is longer than {VARIABLE_BYTES_MAX} bytes or has a null in it"
        ));
    }
    Ok(())
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

/// Refuses headers that cannot be sent or are not for configurations to set.
fn check_headers(field: &str, headers: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let refused = |message: String| Err(invalid(message, "invalid_header"));
    if headers.len() > HEADERS_MAX {
        return refused(format!("`{field}` has at most {HEADERS_MAX} entries"));
    }
    let mut names: Vec<String> = Vec::new();
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        if HEADERS_REFUSED.contains(&lower.as_str()) || names.contains(&lower) {
            return refused(format!("the header `{lower}` cannot be set, or is set twice"));
        }
        if value.len() > HEADER_BYTES_MAX {
            return refused(format!(
                "the value of `{lower}` is longer than {HEADER_BYTES_MAX} bytes"
            ));
        }
        if let Err(error) = Request::get("http://localhost").header(name, value) {
            return refused(error.to_string());
        }
        names.push(lower);
    }
    Ok(())
}

/// Refuses secrets that would not stay secret, or that nobody gets.
pub(crate) fn check_secrets(
    transport: &McpTransport,
    secrets: &BTreeMap<String, String>,
) -> Result<(), ApiError> {
    if secrets.is_empty() {
        return Ok(());
    }
    let McpTransport::Http { url, headers } = transport else {
        return Err(invalid("`secretHeaders` are for servers on the web", "invalid_header"));
    };
    check_headers("secretHeaders", secrets)?;
    let is_double = |name: &String| headers.keys().any(|other| other.eq_ignore_ascii_case(name));
    if secrets.len() + headers.len() > HEADERS_MAX || secrets.keys().any(is_double) {
        let message = format!("a header stands in one place, and there are at most {HEADERS_MAX}");
        return Err(invalid(message, "invalid_header"));
    }
    if !iris_egress::parse_url(url).is_ok_and(|url| is_safe(&url)) {
        let message = "secrets are sent over https alone";
        return Err(invalid(message, "invalid_url"));
    }
    Ok(())
}

/// How long a server may have to start, and for one answer.
pub(crate) fn check_timeouts(
    initialize: Option<u64>,
    request: Option<u64>,
) -> Result<(), ApiError> {
    let given = [
        ("initializeTimeoutMs", initialize, INITIALIZE_MS),
        ("requestTimeoutMs", request, REQUEST_MS),
    ];
    for (field, value, (least, _, most)) in given {
        if value.is_some_and(|value| !(least..=most).contains(&value)) {
            let message = format!("`{field}` must be from {least} to {most}");
            return Err(invalid(message, "invalid_timeout"));
        }
    }
    Ok(())
}

/// The timeouts of a server that does not say.
pub(crate) fn timeouts(initialize: Option<u64>, request: Option<u64>) -> (u64, u64) {
    (initialize.unwrap_or(INITIALIZE_MS.1), request.unwrap_or(REQUEST_MS.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(result: Result<(), ApiError>) -> String {
        result.unwrap_err().details["reason"].as_str().unwrap().to_owned()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn program(env: &[(&str, &str)]) -> McpTransport {
        McpTransport::Stdio { command: "node".into(), args: vec!["x.js".into()], env: map(env) }
    }

    fn web(url: &str, headers: &[(&str, &str)]) -> McpTransport {
        McpTransport::Http { url: url.into(), headers: map(headers) }
    }

    #[test]
    fn names_of_servers_never_hold_what_separates_them_from_tools() {
        for name in ["a", "files", "git-2", &"x".repeat(32)] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "A", "a_b", "a__b", "-a", "2a", "a.b", "ä", &"x".repeat(33)] {
            assert_eq!(reason(check_name(name)), "invalid_name", "{name}");
        }
    }

    #[test]
    fn m6_variables_that_decide_which_code_runs_are_refused() {
        assert_eq!(check_transport(&program(&[("LOG_LEVEL", "debug"), ("ROOT", "/x")])), Ok(()));
        for name in [
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "PATH",
            "NODE_OPTIONS",
            "NODE_PATH",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "RUBYOPT",
            "BASH_ENV",
            "ENV",
            "IFS",
            "GIT_SSH_COMMAND",
            "JAVA_TOOL_OPTIONS",
            "HOME",
            "TMPDIR",
            "NPM_CONFIG_PREFIX",
            "ld_preload",
            "",
            "A=B",
            "1A",
            "Ä",
        ] {
            assert_eq!(reason(check_transport(&program(&[(name, "x")]))), "invalid_env", "{name}");
        }
        assert_eq!(reason(check_transport(&program(&[("A", "a\0")]))), "invalid_env");
        let many: Vec<String> = (0..33).map(|number| format!("A{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(reason(check_transport(&program(&many))), "invalid_env");
    }

    #[test]
    fn programs_and_addresses_out_of_bounds_are_refused() {
        let bad = |command: &str, args: Vec<String>| {
            let env = BTreeMap::new();
            reason(check_transport(&McpTransport::Stdio { command: command.into(), args, env }))
        };
        assert_eq!(bad("", vec![]), "invalid_command");
        assert_eq!(bad("a\0", vec![]), "invalid_command");
        assert_eq!(bad("a", vec![String::new(); 65]), "invalid_command");
        assert_eq!(bad("a", vec!["x".repeat(4097)]), "invalid_command");
        for url in ["", "ftp://a.example", "https://user:secret@a.example/", "a.example"] {
            assert_eq!(reason(check_transport(&web(url, &[]))), "invalid_url", "{url}");
        }
        for name in ["Host", "authorization", "Cookie", "mcp-session-id", "a b", "Accept"] {
            let refused = check_transport(&web("https://a.example/", &[(name, "x")]));
            assert_eq!(reason(refused), "invalid_header", "{name}");
        }
        let twice = web("https://a.example/", &[("x-a", "1"), ("X-A", "2")]);
        assert_eq!(reason(check_transport(&twice)), "invalid_header");
    }

    #[test]
    fn secrets_go_over_tls_or_stay_on_the_machine() {
        let secret = map(&[("authorization", "Bearer x")]);
        for url in
            ["https://a.example/", "http://127.0.0.1:3000/", "http://localhost/", "http://[::1]/"]
        {
            assert_eq!(check_secrets(&web(url, &[]), &secret), Ok(()));
        }
        let plain = web("http://a.example/", &[]);
        assert_eq!(reason(check_secrets(&plain, &secret)), "invalid_url");
        assert_eq!(reason(check_secrets(&program(&[]), &secret)), "invalid_header");
        let twice = web("https://a.example/", &[("Authorization", "x")]);
        assert_eq!(reason(check_secrets(&twice, &secret)), "invalid_header");
        assert_eq!(check_secrets(&plain, &BTreeMap::new()), Ok(()));
    }

    #[test]
    fn timeouts_are_bounded() {
        assert_eq!(check_timeouts(Some(100), Some(600_000)), Ok(()));
        assert_eq!(reason(check_timeouts(Some(99), None)), "invalid_timeout");
        assert_eq!(reason(check_timeouts(None, Some(600_001))), "invalid_timeout");
        assert_eq!(timeouts(None, Some(5)), (30_000, 5));
    }
}
