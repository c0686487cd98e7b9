//! The `iris` command.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};
use iris::app::{App, AppError, Dependencies};
use iris::config::{Config, Flags};
use iris::demo::{self, DemoOptions};
use iris::notify::Notifier;
use iris::{
    account, allocator, chat, exit, http, keys, logging, login, logs, maintenance, manual, models,
    settings_command, top,
};
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
    Serve(ServeOptions),
    /// Show the server at work: two people and an agent share a session
    Demo(DemoOptions),
    /// Talk with an agent of a server, in the terminal or in a pipe
    Chat(chat::ChatOptions),
    /// Log in at a server, for the commands that follow
    Login(login::LoginOptions),
    /// End that login
    Logout(login::LoginOptions),
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
    /// List, create, close and open accounts
    User(account::UserOptions),
    /// List, make and revoke your API keys
    Key(account::KeyOptions),
    /// List the models that a server can ask
    Model(models::ModelOptions),
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
    Openapi(DocumentOptions),
    /// Print the AsyncAPI document of the WebSocket
    Asyncapi(DocumentOptions),
    /// Print the JSON Schema of the wire protocol
    Schema(DocumentOptions),
    /// Print what a shell runs to complete these commands
    Completions(manual::CompletionsOptions),
    /// Print the manual of these commands, or write its pages into a directory
    Man(manual::ManOptions),
}

/// How the server runs, and how it says where.
#[derive(clap::Args)]
struct ServeOptions {
    #[command(flatten)]
    flags: Flags,
    /// Say where it listens as one line of JSON
    #[arg(long)]
    json: bool,
}

/// How to print a document, which is JSON in any case.
#[derive(clap::Args)]
struct DocumentOptions {
    /// On one line
    #[arg(long)]
    json: bool,
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
/// The configured setup token inside of a text in single quotes: ends them, expands, begins them again.
const SETUP_TOKEN_IN_SHELL: &str = "'\"$IRIS_SETUP_TOKEN\"'";

fn main() -> ExitCode {
    // The sandbox starts this executable again for each command, and waits for it.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == LAUNCHER_ARGUMENT) {
        return iris_sandbox::launcher_main();
    }
    let cli = Cli::parse();
    match cli.command {
        None => serve(cli.flags, false),
        Some(Verb::Serve(options)) => serve(options.flags, options.json),
        Some(Verb::Demo(options)) => demo::run(options),
        Some(Verb::Chat(options)) => chat::run(&options),
        Some(Verb::Login(options)) => login::login(&options),
        Some(Verb::Logout(options)) => login::logout(&options),
        Some(Verb::Top(options)) => top::run(&options),
        Some(Verb::Logs(options)) => logs::run(&options),
        Some(Verb::Project(options)) => maintenance::project(options),
        Some(Verb::Db(options)) => maintenance::database(&options),
        Some(Verb::Audit(options)) => maintenance::audit(&options),
        Some(Verb::User(options)) => account::user(&options),
        Some(Verb::Key(options)) => account::key(&options),
        Some(Verb::Model(options)) => models::run(&options),
        Some(Verb::Keys(options)) => keys::run(&options),
        Some(Verb::Backup(options)) => maintenance::backup(&options),
        Some(Verb::Doctor(place)) => maintenance::doctor(&place),
        Some(Verb::Restore(options)) => maintenance::restore(&options),
        Some(Verb::Config(options)) => settings_command::run(options),
        Some(Verb::Openapi(options)) => {
            print_json(&options, &iris_protocol::openapi(http::VERSION))
        }
        Some(Verb::Asyncapi(options)) => {
            print_json(&options, &iris_protocol::asyncapi(http::VERSION))
        }
        Some(Verb::Schema(options)) => print_json(&options, &iris_protocol::schema_document()),
        Some(Verb::Completions(options)) => manual::completions(Cli::command(), &options),
        Some(Verb::Man(options)) => manual::man(Cli::command(), &options),
    }
}

fn print_json(options: &DocumentOptions, document: &serde_json::Value) -> ExitCode {
    let text = if options.json { document.to_string() } else { format!("{document:#}") };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(code: u8, message: impl std::fmt::Display) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "iris: {message}"));
    ExitCode::from(code)
}

fn serve(flags: Flags, is_json: bool) -> ExitCode {
    allocator::share_arenas();
    // Before anything secret is read; the environment may hold some from the beginning.
    let hidden = iris_sandbox::hide_memory();
    let (config, warnings) = match Config::from_process(flags.clone()) {
        Ok(loaded) => loaded,
        Err(error) => return fail(exit::CONFIG, error),
    };
    let logging = match logging::start(&config) {
        Ok(logging) => logging,
        Err(error) => return fail(exit::CONFIG, error),
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
    let ended = actix_rt::System::new().block_on(run(config, flags, logging.control(), is_json));
    logging.stop();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code =
                if matches!(error, AppError::Locked(_)) { exit::LOCKED } else { exit::FAILED };
            fail(code, error)
        }
    }
}

async fn run(
    config: Config,
    flags: Flags,
    log: Arc<dyn LogControl>,
    is_json: bool,
) -> Result<(), AppError> {
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
    if is_json {
        writeln!(io::stdout(), "{}", serde_json::json!({ "url": url }))?;
    } else {
        writeln!(io::stdout(), "listening on {url}")?;
    }
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

    /// The commands without commands of their own, each with its whole name.
    fn leaves(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let mut found = Vec::new();
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            let path = format!("{path} {}", below.get_name());
            if below.has_subcommands() {
                found.extend(leaves(below, &path));
            } else {
                found.push((path, below.clone()));
            }
        }
        found
    }

    #[test]
    fn every_command_that_prints_something_prints_json() {
        // What they print is for a shell and for `man`.
        let others = ["iris completions", "iris man"];
        let mut commands = Cli::command();
        // Spreads the arguments that count for all commands below one.
        commands.build();
        for (path, command) in leaves(&commands, "iris") {
            let has_json =
                command.get_arguments().any(|argument| argument.get_long() == Some("json"));
            assert!(has_json || others.contains(&path.as_str()), "`{path}` has no `--json`");
        }
    }

    #[test]
    fn every_command_is_in_the_manual() {
        let text = include_str!("../docs/cli.md");
        let mut commands = Cli::command();
        commands.build();
        for (path, _) in leaves(&commands, "iris") {
            assert!(text.contains(&format!("`{path}")), "docs/cli.md does not tell of `{path}`");
        }
    }

    #[test]
    fn the_definition_of_the_commands_is_sound() {
        Cli::command().debug_assert();
    }

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
