//! `iris chat` as people and scripts run it: a process of its own at a server process.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use iris_protocol::{
    AuthRegister, MessageRole, ProjectId, Role, RunStatus, SessionId, ToolState, TypingStart,
};
use iris_testkit::{Conversation, PASSWORD, PATIENCE, Person, ServerProcess, calls_of, patiently};
use serde_json::Value;
use tempfile::tempdir;
use tokio::sync::mpsc;

use crate::iris as serve;

const WRITE: &str = "call write {\"path\": \"a.txt\", \"content\": \"1\"}\nstep\nsay wrote it";

async fn register(server: &ServerProcess, name: &str) -> Person {
    let request = AuthRegister {
        invitation: None,
        email: format!("{name}@example.com"),
        username: name.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let client = server.client();
    Person::new(&client, client.register(&request).await.unwrap())
}

fn chat(server: &ServerProcess, person: &Person, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command.arg("chat").args(args).env_clear();
    command.env("IRIS_URL", &server.url).env("IRIS_TOKEN", person.token());
    command
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The numbers of the durable events, each larger than the one before.
fn seqs(lines: &[Value]) -> Vec<u64> {
    let seqs: Vec<u64> = lines.iter().filter_map(|line| line["seq"].as_u64()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    seqs
}

fn of_type<'a>(lines: &'a [Value], name: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == name).map(|line| &line["payload"]).collect()
}

#[tokio::test]
async fn a_question_in_a_pipe_is_answered_by_events_and_a_code() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let ann = register(&server, "ann").await;
    // Who has no project gets one.
    let mut piped = Command::new("sh");
    piped.args(["-c", "printf 'say hello\\nsay there' | \"$0\" chat --json"]);
    piped.arg(env!("CARGO_BIN_EXE_iris")).env_clear();
    piped.env("IRIS_URL", &server.url).env("IRIS_TOKEN", ann.token()).env("PATH", "/usr/bin:/bin");
    let (code, text, errors) = ServerProcess::ended(piped).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let lines = json_lines(&text);
    assert_eq!(lines[0]["type"], "chat.session");
    assert_eq!(of_type(&lines, "message.text.complete")[0]["text"], "hello\nthere");
    assert_eq!(of_type(&lines, "chat.ended")[0]["status"], "completed");
    assert!(!seqs(&lines).is_empty(), "{text}");

    // The same for people, in the session of before.
    let (code, text, _) =
        ServerProcess::ended(chat(&server, &ann, &["--last", "say # again\nsay \u{1b}[2Jdone"]))
            .await;
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.lines().collect::<Vec<_>>()[3..], ["default:", "# again", "\\u{1b}[2Jdone"]);
    let place = &lines[0]["payload"];
    let (project, session) =
        (place["projectId"].as_str().unwrap(), place["sessionId"].as_str().unwrap());
    let (project, session): (ProjectId, SessionId) =
        (project.parse().unwrap(), session.parse().unwrap());
    assert_eq!(ann.snapshot(&project, &session).await.messages.len(), 4);
    let (code, text, _) = ServerProcess::ended(chat(&server, &ann, &["--list", "--json"])).await;
    assert_eq!((code, json_lines(&text)[0]["id"].as_str()), (Some(0), Some(session.as_str())));

    // How it fails says how it ends, and what to do next.
    for (args, expected, words) in [
        (vec!["fail invalid on purpose"], 1, ""),
        (
            vec!["--project", "nowhere", "say x"],
            2,
            "there is no project `nowhere`; there are: chat",
        ),
        (vec!["--model", "nothing", "say x"], 2, "`PROVIDER/MODEL`"),
        (vec![], 2, "give a message"),
    ] {
        let (code, text, errors) = ServerProcess::ended(chat(&server, &ann, &args)).await;
        assert_eq!(code, Some(expected), "{args:?}: {text}{errors}");
        assert!(errors.contains(words), "{args:?}: {errors}");
    }
    ann.project("another").await;
    let (code, _, errors) = ServerProcess::ended(chat(&server, &ann, &["say x"])).await;
    assert_eq!((code, errors.contains("name one with `--project`")), (Some(2), true), "{errors}");
    let mut nobody = chat(&server, &ann, &["say x"]);
    nobody.env_remove("IRIS_TOKEN").env("IRIS_CREDENTIALS_FILE", dir.path().join("none"));
    let (code, _, errors) = ServerProcess::ended(nobody).await;
    assert_eq!((code, errors.contains("run `iris login`")), (Some(2), true), "{errors}");
}

#[tokio::test]
async fn nobody_in_a_pipe_approves_anything_but_others_may() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let ann = register(&server, "ann").await;
    let mut talk = ann.conversation().await;
    let (project, session) = (talk.project.to_string(), talk.session.to_string());
    let place = ["--project", &project, "--session", &session, "--json"];
    let (code, text, errors) =
        ServerProcess::ended(chat(&server, &ann, &[&place[..], &[WRITE]].concat())).await;
    assert_eq!(code, Some(77), "{text}{errors}");
    assert!(errors.contains("run `iris chat` in a terminal"), "{errors}");
    let lines = json_lines(&text);
    let resolved = of_type(&lines, "tool.approval.resolved");
    assert_eq!(resolved[0]["state"], "rejected");
    assert_eq!(of_type(&lines, "chat.ended")[0]["refused"], 1);

    let waiting = chat(&server, &ann, &[&place[..], &["--leave-questions", WRITE]].concat());
    let ended = tokio::spawn(ServerProcess::ended(waiting));
    // The one that was rejected is heard first.
    talk.approval().await;
    let approval = talk.approval().await;
    talk.approve(&approval.tool_call_id).await.unwrap();
    let (code, text, errors) = patiently("the chat", ended).await.unwrap();
    assert_eq!(code, Some(0), "{text}{errors}");
    assert!(text.contains("wrote it"), "{text}");
}

/// A process whose lines are read as they come. Killed when it is dropped.
struct Lines {
    child: Child,
    stdout: mpsc::UnboundedReceiver<String>,
    seen: Vec<Value>,
}

impl Drop for Lines {
    fn drop(&mut self) {
        // Fails when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Lines {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let pipe = BufReader::new(child.stdout.take().unwrap());
        let (lines_tx, stdout) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                if lines_tx.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, stdout, seen: Vec::new() }
    }

    async fn wait_for(&mut self, name: &str) {
        let waiting = async {
            loop {
                let line: Value = serde_json::from_str(&self.stdout.recv().await.unwrap()).unwrap();
                self.seen.push(line);
                if self.seen.last().unwrap()["type"] == name {
                    return;
                }
            }
        };
        patiently(name, waiting).await;
    }

    async fn end(mut self) -> (Option<i32>, Vec<Value>) {
        self.wait_for("chat.ended").await;
        let seen = std::mem::take(&mut self.seen);
        let ended = tokio::task::spawn_blocking(move || self.child.wait().unwrap().code());
        (patiently("the end of the chat", ended).await.unwrap(), seen)
    }
}

/// The same server again, at the same address.
async fn again(data_dir: &Path, bind: &str) -> ServerProcess {
    let mut command = serve(data_dir);
    command.args(["--bind", bind]);
    // A flag counts once: this one is in place of the port that is free.
    let mut moved = Command::new(command.get_program());
    let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let args = args.into_iter().filter(|arg| arg != "127.0.0.1:0");
    let mut args: Vec<_> = args.collect();
    args.remove(args.iter().position(|arg| arg == "--bind").unwrap());
    moved.args(args).env_clear();
    moved.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    moved.stdin(Stdio::null()).stdout(Stdio::piped());
    ServerProcess::start(moved).await
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_loses_and_doubles_nothing() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let bind = server.url.strip_prefix("http://").unwrap().to_owned();
    let ann = register(&server, "ann").await;
    ann.project("p").await;
    let script = "say one\ncall list\nstep\ndelay 100\nchunks 400 tick\nsay end";
    let mut pipe = Lines::start(chat(&server, &ann, &["--json", script]));
    pipe.wait_for("message.tool.result").await;
    server.kill();
    let server = again(dir.path(), &bind).await;
    let (code, lines) = pipe.end().await;
    // The run was cut off with the server, and what was recorded of that was heard: each event once.
    assert_eq!(code, Some(1), "{lines:?}");
    assert_eq!(of_type(&lines, "chat.ended")[0]["status"], "interrupted");
    let ann = Person::new(&server.client(), ann.grant.clone());
    let place = &lines[0]["payload"];
    let project: ProjectId = place["projectId"].as_str().unwrap().parse().unwrap();
    let session: SessionId = place["sessionId"].as_str().unwrap().parse().unwrap();
    let stored = ann.snapshot(&project, &session).await;
    assert_eq!(of_type(&lines, "message.tool.call").len(), 1);
    assert_eq!(of_type(&lines, "run.completed").len(), 1);
    let texts: String = of_type(&lines, "message.text.complete")
        .iter()
        .map(|payload| payload["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, iris_testkit::text_of(stored.messages.last().unwrap()));
    assert!(texts.starts_with("one") && !texts.ends_with("end"), "{texts}");
    seqs(&lines);
}

/// `iris chat` in a terminal of its own, made by `script` of util-linux.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: mpsc::UnboundedReceiver<Vec<u8>>,
    text: String,
    /// How much of the text was looked at.
    read: usize,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Terminal {
    fn start(server: &ServerProcess, person: &Person, args: &str) -> Self {
        let mut command = Command::new("script");
        let line = format!("{} chat {args}", env!("CARGO_BIN_EXE_iris"));
        command.args(["--quiet", "--return", "--flush", "--command", &line, "/dev/null"]);
        command.env_clear().env("TERM", "xterm").env("PATH", "/usr/bin:/bin");
        command.env("IRIS_URL", &server.url).env("IRIS_TOKEN", person.token());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let keys = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (shown_tx, shown) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = stdout.read(&mut buffer) {
                if count == 0 || shown_tx.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, shown, text: String::new(), read: 0 }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Types a text of several lines, as if it was pasted, and sends it.
    fn say(&mut self, text: &str) {
        self.press(&format!("\u{1b}[200~{text}\u{1b}[201~\r"));
    }

    /// Waits until this is shown, after what was waited for before.
    async fn wait_for(&mut self, what: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let fresh = &self.text[self.read..];
            if let Some(at) = fresh.find(what) {
                self.read += at + what.len();
                return;
            }
            let bytes = tokio::time::timeout_at(deadline, self.shown.recv()).await;
            let bytes = bytes.ok().flatten().unwrap_or_else(|| {
                panic!("waited in vain for {what:?} in {:?}", &self.text[self.read..])
            });
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    async fn exit_code(mut self) -> Option<i32> {
        let ended = tokio::task::spawn_blocking(move || {
            let child = &mut self.child;
            child.wait().unwrap().code()
        });
        patiently("the end of the chat", ended).await.unwrap()
    }
}

#[tokio::test]
async fn two_people_and_an_agent_talk_in_a_terminal_through_a_restart() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(dir.path())).await;
    let bind = server.url.strip_prefix("http://").unwrap().to_owned();
    let (ann, bob) = (register(&server, "ann").await, register(&server, "bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let session = ann.session(&project).await.id;
    let place = format!("--project {project} --session {session}");
    let mut terminal = Terminal::start(&server, &ann, &place);
    terminal.wait_for("> ").await;

    // Text streams as markdown, in colours.
    terminal.say("say # A title\nsay and **more**");
    terminal.wait_for("\u{1b}[1;4mA title\u{1b}[0m").await;
    terminal.wait_for("and \u{1b}[1mmore\u{1b}[0m").await;

    // Others are seen, and what they write is harmless.
    let talk: Conversation = bob.join(&project, &session).await;
    talk.call(iris_protocol::PresenceUpdate { session_id: Some(session.clone()), status: None })
        .await
        .unwrap();
    terminal.wait_for("bob here").await;
    talk.call(TypingStart { session_id: session.clone() }).await.unwrap();
    terminal.wait_for("bob is writing").await;
    talk.send_message("say \u{1b}]0;owned\u{7}hi").await;
    terminal.wait_for("bob:").await;
    terminal.wait_for("\\u{1b}]0;owned\\u{7}hi").await;
    assert!(!terminal.text.contains("\u{1b}]0;"), "a title was set");

    // What asks is answered at the prompt.
    terminal.say(WRITE);
    terminal.wait_for("y once").await;
    terminal.wait_for("y/n> ").await;
    terminal.press("y\r");
    terminal.wait_for("[approved by ann]").await;
    terminal.wait_for("wrote it").await;
    terminal.say(WRITE);
    terminal.wait_for("y/n> ").await;
    terminal.press("n not now\r");
    terminal.wait_for("[rejected by ann: not now]").await;
    terminal.wait_for("wrote it").await;

    // A sub-agent, with its task and its result.
    terminal.say(
        "call task {\"description\": \"look around\", \"prompt\": \"say found it\", \"agent\": \"explore\"}",
    );
    terminal.wait_for("    > explore (at work): look around").await;
    terminal.wait_for("    explore answers:").await;
    terminal.wait_for("found it").await;

    // The server goes and comes back; what is said meanwhile is said once.
    server.kill();
    terminal.wait_for("trying again, nothing is lost").await;
    terminal.say("say back again");
    terminal.wait_for("waits for the server").await;
    let server = again(dir.path(), &bind).await;
    terminal.wait_for("[connected again]").await;
    terminal.wait_for("back again").await;
    let ann = Person::new(&server.client(), ann.grant.clone());

    // Ctrl-C cancels a run, and leaves when pressed twice.
    terminal.say("delay 20\nchunks 10000 tick");
    terminal.wait_for("tick tick").await;
    terminal.press("\u{3}");
    terminal.wait_for("[cancelled]").await;
    terminal.press("/who\r");
    terminal.wait_for("ann here").await;
    terminal.press("/new\r/sessions\r");
    terminal.wait_for("*  1 ses_").await;
    terminal.press("\u{3}\u{3}");
    terminal.wait_for("to come back: iris chat --project").await;
    assert_eq!(terminal.exit_code().await, Some(0));

    let messages = ann.snapshot(&project, &session).await.messages;
    let said = messages.iter().filter(|message| {
        message.role == MessageRole::User && iris_testkit::text_of(message) == "say back again"
    });
    assert_eq!(said.count(), 1);
    let calls: Vec<ToolState> = messages.iter().flat_map(calls_of).map(|call| call.state).collect();
    assert_eq!(calls, [ToolState::Completed, ToolState::Denied, ToolState::Completed]);
    let runs = ann.snapshot(&project, &session).await.runs;
    assert_eq!(runs.last().map(|run| run.status), Some(RunStatus::Cancelled));
}
