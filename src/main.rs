//! The `iris` command.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use iris::app::{App, AppError, Dependencies};
use iris::config::{Config, Flags};
use iris::demo::{self, DemoOptions};
use iris::notify::Notifier;
use iris::{http, keys, logging, logs, maintenance, settings_command, top};
use iris_actors::LogControl;
use iris_sandbox::LAUNCHER_ARGUMENT;
use tokio::signal;

/// A headless, multi-user, real-time backend for AI agents.
#[derive(Parser)]
#[command(name = "iris", version = VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Option<Verb>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the server (the default)
    Serve(Flags),
    /// Show the server at work: two people and an agent share a session
    Demo(DemoOptions),
    /// Watch the actors of a server
    Top(top::TopOptions),
    /// Print the supervision log of a server
    Logs(logs::LogsOptions),
    /// List, back up, restore, move, check and delete projects
    Project(maintenance::ProjectOptions),
    /// Check, migrate and compact databases
    Db(maintenance::DatabaseOptions),
    /// Verify and export the audit: who did what with accounts, rights and the server
    Audit(maintenance::AuditOptions),
    /// Create accounts
    User(maintenance::UserOptions),
    /// Change the master key
    Keys(keys::KeysOptions),
    /// Back up the whole server into a new directory
    Backup(maintenance::BackupOptions),
    /// Say whether a server would work with this configuration, on this machine
    Doctor(maintenance::Place),
    /// Build a new data directory from the backup of a whole server
    Restore(maintenance::RestoreOptions),
    /// Check the configuration, or print every setting there is
    Config(settings_command::ConfigOptions),
    /// Print the OpenAPI document of the REST routes
    Openapi,
    /// Print the AsyncAPI document of the WebSocket
    Asyncapi,
    /// Print the JSON Schema of the wire protocol
    Schema,
}

/// What `--version` tells. The test kit has the whole workspace built with what tests break the server
/// with, where that is built at once.
const VERSION: &str = if IS_BREAKABLE {
    concat!(env!("CARGO_PKG_VERSION"), " (with fault injection, not for use)")
} else {
    env!("CARGO_PKG_VERSION")
};
/// Whether variables of the environment can make this server fail.
const IS_BREAKABLE: bool = cfg!(feature = "faults");
/// Another server uses the data directory (`EX_TEMPFAIL` of sysexits.h).
const EXIT_LOCKED: u8 = 75;
/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;
/// The configured setup token inside of a text in single quotes: ends them, expands, begins them again.
const SETUP_TOKEN_IN_SHELL: &str = "'\"$IRIS_SETUP_TOKEN\"'";

fn main() -> ExitCode {
    // The sandbox starts this executable again for each command, and waits for it.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == LAUNCHER_ARGUMENT) {
        return iris_sandbox::launcher_main();
    }
    let cli = Cli::parse();
    match cli.command {
        None => serve(cli.flags),
        Some(Verb::Serve(flags)) => serve(flags),
        Some(Verb::Demo(options)) => demo::run(options),
        Some(Verb::Top(options)) => top::run(&options),
        Some(Verb::Logs(options)) => logs::run(&options),
        Some(Verb::Project(options)) => maintenance::project(options),
        Some(Verb::Db(options)) => maintenance::database(&options),
        Some(Verb::Audit(options)) => maintenance::audit(&options),
        Some(Verb::User(options)) => maintenance::user(&options),
        Some(Verb::Keys(options)) => keys::run(&options),
        Some(Verb::Backup(options)) => maintenance::backup(&options),
        Some(Verb::Doctor(place)) => maintenance::doctor(&place),
        Some(Verb::Restore(options)) => maintenance::restore(&options),
        Some(Verb::Config(options)) => settings_command::run(options),
        Some(Verb::Openapi) => print_json(&iris_protocol::openapi(http::VERSION)),
        Some(Verb::Asyncapi) => print_json(&iris_protocol::asyncapi(http::VERSION)),
        Some(Verb::Schema) => print_json(&iris_protocol::schema_document()),
    }
}

fn print_json(document: &serde_json::Value) -> ExitCode {
    match writeln!(io::stdout(), "{document:#}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(code: u8, message: impl std::fmt::Display) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "iris: {message}"));
    ExitCode::from(code)
}

fn serve(flags: Flags) -> ExitCode {
    // Before anything secret is read; the environment may hold some from the beginning.
    let hidden = iris_sandbox::hide_memory();
    let (config, warnings) = match Config::from_process(flags.clone()) {
        Ok(loaded) => loaded,
        Err(error) => return fail(EXIT_CONFIG, error),
    };
    let logging = match logging::start(&config) {
        Ok(logging) => logging,
        Err(error) => return fail(EXIT_CONFIG, error),
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = hidden {
        tracing::warn!(%error, "other processes of this user can read the memory of the server");
    }
    if IS_BREAKABLE {
        tracing::warn!("this is a build with fault injection, for tests alone: do not use it");
    }
    iris_actors::supervision::install_panic_hook();
    // Each open project holds a handful of descriptors; the usual soft limit is far too low.
    if let Err(error) = rlimit::increase_nofile_limit(rlimit::INFINITY) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    let ended = actix_rt::System::new().block_on(run(config, flags, logging.control()));
    logging.stop();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if matches!(error, AppError::Locked(_)) { EXIT_LOCKED } else { 1 };
            fail(code, error)
        }
    }
}

async fn run(config: Config, flags: Flags, log: Arc<dyn LogControl>) -> Result<(), AppError> {
    let is_token_chosen = config.setup_token.is_some();
    let mut app =
        App::start(config, Dependencies { log: Some(log), ..Dependencies::default() }).await?;
    let url = app.url();
    if let Some(token) = app.setup_token() {
        // The operator's own secret stays out of terminals and logs: their shell puts it in.
        let token = if is_token_chosen { SETUP_TOKEN_IN_SHELL } else { token.as_str() };
        writeln!(io::stderr(), "{}", setup_instructions(&url, token))?;
    }
    // Whoever reads that the server listens may tell it to stop at once.
    let mut signals = StopSignals::new()?;
    app.serve_system(flags, Notifier::of_process())?;
    writeln!(io::stdout(), "listening on {url}")?;
    signals.next().await;
    tracing::info!("stopping; a second signal stops the runs at once");
    app.stop_or_hurry(signals.next()).await
}

fn setup_instructions(url: &str, token: &str) -> String {
    format!(
        "There is no administrator yet. Create the first one with:\n\n  \
         curl -X POST {url}/v1/auth/setup -H 'content-type: application/json' \\\n    \
         -d '{{\"token\":\"{token}\",\"email\":\"you@example.com\",\"username\":\"you\",\
         \"password\":\"choose a long one\"}}'\n"
    )
}

/// The signals that tell the server to stop.
#[cfg(unix)]
struct StopSignals {
    terminate: signal::unix::Signal,
    interrupt: signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignals {
    fn new() -> io::Result<Self> {
        use signal::unix::{SignalKind, signal};
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signal that tells the server to stop.
#[cfg(not(unix))]
struct StopSignals;

#[cfg(not(unix))]
impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if signal::ctrl_c().await.is_err() {
            // Without signals the server runs until its process is ended.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// What `curl` would send, in a shell that knows `IRIS_SETUP_TOKEN`.
    #[expect(clippy::unwrap_used, reason = "a helper of a test fails like the test itself")]
    fn body_sent(instructions: &str) -> serde_json::Value {
        let (_, command) = instructions.split_once(":\n").unwrap();
        let script = format!("curl() {{ for last; do :; done; printf %s \"$last\"; }}\n{command}");
        let shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .env("IRIS_SETUP_TOKEN", "chosen by  you")
            .output()
            .unwrap();
        serde_json::from_slice(&shell.stdout).unwrap()
    }

    #[test]
    fn the_instructions_send_the_token_whether_they_show_it_or_not() {
        let shown = setup_instructions("http://127.0.0.1:1", "generated");
        assert_eq!(body_sent(&shown)["token"], "generated");
        let hidden = setup_instructions("http://127.0.0.1:1", SETUP_TOKEN_IN_SHELL);
        assert_eq!(body_sent(&hidden)["token"], "chosen by  you");
        assert!(hidden.contains("curl -X POST http://127.0.0.1:1/v1/auth/setup"), "{hidden}");
    }
}
