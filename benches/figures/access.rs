//! What it costs to know who asks: the decision and the check of a key in this process, sockets while many
//! log in, what others get while one key asks too much, and how soon a login that ended has no sockets any more.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::future::{join, join_all, try_join_all};
use iris_auth::{
    ApiKeySecret, Caller, CallerUser, KeyRights, PASSWORD_WAITERS_MAX, Resource, authorize,
};
use iris_client::{Client, ClientError, ConnectOptions, Socket};
use iris_protocol::{
    AuthGrant, ErrorCode, KeyCreate, KeyId, Operation, Ping, ProjectId, ProjectType, Role, Scope,
    UserCreate, UserGet, UserId,
};
use iris_store::root::{CreateKey, CreateProject, CreateUser};
use iris_store::{Command, RootDatabase, RootReader, WriteContext};
use tokio::sync::Barrier;
use tokio::task::spawn_blocking;

use crate::conversation::Owner;
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

const DECISION_US_MAX: f64 = 2.0;
const KEY_US_MAX: f64 = 5.0;
const ECHO_MS_MAX: f64 = 20.0;
const CLOSED_MS_MAX: f64 = 1_000.0;
/// Decisions about one operation, and keys, of one sample.
const DECISIONS: usize = 2_000;
const KEYS: usize = 20_000;
/// Keys of one sample that are looked up in the database.
const KEYS_STORED: usize = 500;
const SAMPLES: usize = 15;
/// How often a crowd logs in, is disconnected, or asks too much.
const ROUNDS: usize = 3;
const LOGINS: usize = 100;
/// Of these whose password is hashed at least: one, and those that may wait for it. The others come too soon.
const HASHED_MIN: usize = 1 + PASSWORD_WAITERS_MAX;
/// Pings before the logins, to have something beside those that they meet.
const QUIET_PINGS: usize = 500;
const SOCKETS: usize = 1_000;
/// Handshakes, and requests of others, at the same time.
const AT_ONCE: usize = 50;
/// Requests of one key at once, and of each of the others one after the other.
const GREEDY: usize = 1_000;
/// Of each of them: some seconds in all.
const PATIENT: usize = 600;
const LOST_PERCENT_MAX: f64 = 10.0;
/// The close code of a socket whose login ended.
const LOGGED_OUT: u16 = 4401;
const PASSWORD: &str = "a long password";
/// What a key may do unless the operator says otherwise, which no other figure is limited by.
const KEY_LIMIT: [(&str, &str); 1] = [("IRIS_KEY_REQUESTS_PER_SECOND", "50")];

/// Measures all five, the last three on one server.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let mut figures = vec![decision()?, key().await?];
    let data_dir = data_dir()?;
    let server = Server::start_with(data_dir.path(), &KEY_LIMIT)?;
    let owner = Owner::of(&server).await?;
    figures.push(echo(&server, &owner).await?);
    figures.push(greed(&server, &owner).await?);
    figures.push(revocation(&server, &owner).await?);
    server.stop()?;
    Ok(figures)
}

/// Each operation for somebody who may do it, with a login and with a key that is good for everything.
fn decision() -> anyhow::Result<Figure> {
    let (user_id, project) = (UserId::from_bits(1), ProjectId::from_bits(2));
    let all = KeyRights { scopes: Scope::ALL.to_vec(), project_id: None };
    let (mut slowest, mut medians): (Option<(Operation, Vec<f64>)>, _) = (None, Vec::new());
    for key in [None, Some(all)] {
        let caller = Caller::User(CallerUser { user_id: user_id.clone(), is_admin: true, key });
        let resource = Resource::Project { id: Some(&project), role: Some(Role::Owner) };
        for operation in Operation::ALL {
            let samples = per_call(DECISIONS, || {
                let decided = authorize(black_box(&caller), black_box(*operation), resource);
                black_box(decided.is_ok());
                Ok(())
            })?;
            medians.push(median(&samples));
            if slowest.as_ref().is_none_or(|(_, other)| median(other) < median(&samples)) {
                slowest = Some((*operation, samples));
            }
        }
    }
    let (operation, samples) = slowest.context("there are operations")?;
    Ok(Figure {
        name: "the slowest decision whether somebody may",
        target: Some(DECISION_US_MAX),
        unit: "us",
        samples,
        comparison: format!("of all operations {:.3} us; `{}`", median(&medians), operation.name()),
    })
}

/// From the text that a program sends to what may be done with it, as a request has it: shape, check sum, hash,
/// whose it is, what its user is in a project, and the decision.
async fn key() -> anyhow::Result<Figure> {
    let data_dir = data_dir()?;
    let secret = ApiKeySecret::random()?;
    let project = ProjectId::from_bits(3);
    let root = with_key(data_dir.path(), &secret, &project).await?;
    let (reader, text) = (root.reader(), secret.as_str());
    let samples = per_check(KEYS, async || check(&reader, text, &project).await).await?;
    let stored = async || {
        // Nothing is known of it.
        check(&reader.unknowing(), text, &project).await
    };
    let stored = per_check(KEYS_STORED, stored).await?;
    spawn_blocking(|| root.close()).await?;
    Ok(Figure {
        name: "an API key, checked from the cache",
        target: Some(KEY_US_MAX),
        unit: "us",
        samples,
        comparison: format!("through the database {:.1} us", median(&stored)),
    })
}

/// What a request with a key goes through before anything is done for it.
async fn check(reader: &RootReader, text: &str, project: &ProjectId) -> anyhow::Result<()> {
    ensure!(ApiKeySecret::is_well_formed(black_box(text)), "it looks like a key");
    let found =
        reader.key_by_hash(ApiKeySecret::hash_of(text)).await?.context("the key is there")?;
    let access = reader.key_access(&found.id, Some(project)).await?;
    let access = access.context("the key is there")?;
    let key = KeyRights { scopes: access.scopes, project_id: access.project_id };
    let user = CallerUser { user_id: found.user_id, is_admin: access.is_admin, key: Some(key) };
    let resource = Resource::Project { id: Some(project), role: access.role };
    let decided = authorize(&Caller::User(user), Operation::SessionList, resource);
    ensure!(!access.disabled && decided.is_ok(), "the key may do that");
    Ok(())
}

/// A root database with somebody, their project and their key.
async fn with_key(
    directory: &Path,
    secret: &ApiKeySecret,
    project: &ProjectId,
) -> anyhow::Result<RootDatabase> {
    let path = directory.join("root.db");
    let root = spawn_blocking(move || RootDatabase::open_or_create(&path, 1)).await??;
    let user_id = UserId::from_bits(1);
    let user = CreateUser {
        id: user_id.clone(),
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password_hash: None,
        is_admin: false,
        only_if_no_admin: false,
        at: 1,
    };
    let own = CreateProject {
        id: project.clone(),
        owner_id: user_id.clone(),
        name: "figures".to_owned(),
        description: None,
        r#type: ProjectType::Local,
        path: None,
        git: None,
        at: 1,
    };
    let key = CreateKey {
        id: KeyId::from_bits(2),
        user_id,
        name: "figures".to_owned(),
        hash: secret.hash(),
        hint: secret.hint(),
        scopes: Scope::ALL.to_vec(),
        project_id: None,
        expires_at: None,
        at: 1,
    };
    run(&root, user).await?;
    run(&root, own).await?;
    run(&root, key).await?;
    Ok(root)
}

async fn run<C: Command>(root: &RootDatabase, command: C) -> anyhow::Result<()> {
    root.writer().submit(command, WriteContext::default()).await?;
    Ok(())
}

/// Microseconds of one call, over samples of many.
fn per_call(
    times: usize,
    mut call: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let started_at = Instant::now();
        for _ in 0..times {
            call()?;
        }
        samples.push(us_each(started_at.elapsed(), times));
    }
    Ok(samples)
}

/// The same of a call that may have to wait.
async fn per_check(
    times: usize,
    mut call: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let started_at = Instant::now();
        for _ in 0..times {
            call().await?;
        }
        samples.push(us_each(started_at.elapsed(), times));
    }
    Ok(samples)
}

#[expect(clippy::cast_precision_loss, reason = "there are thousands")]
fn us_each(all: Duration, times: usize) -> f64 {
    ms(all) * 1_000.0 / times as f64
}

/// Pings of one socket while a hundred log in at once, half of them with the right password.
async fn echo(server: &Server, owner: &Owner) -> anyhow::Result<Figure> {
    let socket = owner.client.connect(&ConnectOptions::default()).await?;
    let mut quiet = Vec::new();
    for _ in 0..QUIET_PINGS {
        quiet.push(ping(&socket).await?);
    }
    let (mut samples, mut pings, mut let_in, mut refused) = (Vec::new(), 0, 0, 0);
    for _ in 0..ROUNDS {
        // The pings go on until all are answered.
        let (mut busy, answers) = storm(server, owner, &socket).await?;
        pings += busy.len();
        samples.push(p99(&mut busy));
        let hashed = answers.iter().filter(|answer| !matches!(answer, Login::Later)).count();
        ensure!(hashed >= HASHED_MIN, "{hashed} of {LOGINS} logins were hashed, not {HASHED_MIN}");
        for answer in answers {
            match answer {
                Login::In(grant) => {
                    let_in += 1;
                    // A user has a hundred logins at most.
                    owner.client.with_grant(&grant).logout().await?;
                }
                Login::Refused => refused += 1,
                Login::Later => {}
            }
        }
    }
    ensure!(let_in > 0 && refused > 0 && pings > 0, "nobody logged in meanwhile");
    socket.close().await;
    Ok(Figure {
        name: "ping while 100 log in at once, p99",
        target: Some(ECHO_MS_MAX),
        unit: "ms",
        samples,
        comparison: format!(
            "nobody else {:.2} ms; {pings} pings, {} of {} logins hashed, {let_in} let in, {refused} with a \
             wrong password, the others told to come back",
            p99(&mut quiet),
            let_in + refused,
            ROUNDS * LOGINS,
        ),
    })
}

/// What became of an attempt to log in.
enum Login {
    In(Box<AuthGrant>),
    Refused,
    /// There were too many.
    Later,
}

/// What pings take while everybody logs in, and what became of the logins.
async fn storm(
    server: &Server,
    owner: &Owner,
    socket: &Socket,
) -> anyhow::Result<(Vec<f64>, Vec<Login>)> {
    let barrier = Arc::new(Barrier::new(LOGINS + 1));
    let logins = (0..LOGINS).map(|n| {
        let (barrier, url) = (Arc::clone(&barrier), server.url().to_owned());
        let email = owner.grant.user.email.clone();
        tokio::spawn(async move {
            let client = Client::new(&url)?;
            let nobody = format!("nobody{n}@example.com");
            let email = if n % 2 == 0 { email } else { nobody };
            barrier.wait().await;
            match client.login(&email, PASSWORD).await {
                Ok(grant) => Ok(Login::In(Box::new(grant))),
                Err(ClientError::Api(error)) if error.code == ErrorCode::Unauthenticated => {
                    Ok(Login::Refused)
                }
                Err(ClientError::Api(error)) if error.code == ErrorCode::Overloaded => {
                    Ok(Login::Later)
                }
                Err(error) => bail!("a login failed: {error}"),
            }
        })
    });
    let logins = join_all(logins.collect::<Vec<_>>());
    let mut busy = Vec::new();
    let begun = async {
        barrier.wait().await;
    };
    let mut logins = std::pin::pin!(join(logins, begun));
    let answers = loop {
        tokio::select! {
            (answers, ()) = &mut logins => break answers,
            took = ping(socket) => busy.push(took?),
        }
    };
    let answers = answers.into_iter().map(|it| it?).collect::<anyhow::Result<Vec<_>>>()?;
    Ok((busy, answers))
}

/// How many requests less others get answered over some seconds in which one key asks a thousand times at
/// once. The clients of both share the processor with the server, and to be refused is work for them too.
async fn greed(server: &Server, owner: &Owner) -> anyhow::Result<Figure> {
    let create =
        KeyCreate { name: "greedy".to_owned(), scopes: None, project_id: None, expires_at: None };
    let key = owner.client.over_rest(&create).await?.key;
    let client = Client::new(server.url())?;
    let email = "ben@example.com";
    let other = UserCreate {
        email: email.to_owned(),
        username: "ben".to_owned(),
        password: Some(PASSWORD.to_owned()),
        is_admin: false,
    };
    owner.client.over_rest(&other).await?;
    let ben = client.with_grant(&client.login(email, PASSWORD).await?);
    let (greedy, mut samples, mut rates, mut limited) =
        (client.with_token(key), Vec::new(), Vec::new(), 0);
    requests(&ben).await?;
    for _ in 0..ROUNDS {
        let alone = requests(&ben).await?;
        let asking = join_all((0..GREEDY).map(|_| greedy.over_rest(&UserGet {})));
        let (beside, answers) = join(requests(&ben), asking).await;
        let beside = beside?;
        for answer in answers {
            match answer {
                Ok(_) => {}
                Err(ClientError::Api(error)) if error.code == ErrorCode::RateLimited => {
                    limited += 1;
                }
                Err(error) => bail!("a request with a key failed: {error}"),
            }
        }
        samples.push((1.0 - beside / alone).max(0.0) * 100.0);
        rates.push(alone);
    }
    ensure!(limited > GREEDY, "the key was not limited");
    Ok(Figure {
        name: "requests lost to a key that asks 1,000 at once",
        target: Some(LOST_PERCENT_MAX),
        unit: "%",
        samples,
        comparison: format!("alone {:.0} requests a second", median(&rates)),
    })
}

/// Requests a second that a user gets answered over several connections.
async fn requests(client: &Client) -> anyhow::Result<f64> {
    let started_at = Instant::now();
    let askers = (0..AT_ONCE).map(async |_| {
        for _ in 0..PATIENT {
            client.over_rest(&UserGet {}).await?;
        }
        Ok::<_, ClientError>(())
    });
    try_join_all(askers).await?;
    Ok(1_000_000.0 / us_each(started_at.elapsed(), AT_ONCE * PATIENT))
}

async fn ping(socket: &Socket) -> anyhow::Result<f64> {
    let started_at = Instant::now();
    socket.call(None, Ping {}).await?;
    Ok(ms(started_at.elapsed()))
}

/// The sockets of a user whose every login ends.
async fn revocation(server: &Server, owner: &Owner) -> anyhow::Result<Figure> {
    let alone = closed(server, owner, 1).await?;
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        samples.push(p99(&mut closed(server, owner, SOCKETS).await?));
    }
    Ok(Figure {
        name: "1,000 sockets of a login that ended, closed, p99",
        target: Some(CLOSED_MS_MAX),
        unit: "ms",
        samples,
        comparison: format!("one socket {:.2} ms", median(&alone)),
    })
}

/// How long after the request to end it each socket of a login hears that it is closed.
async fn closed(server: &Server, owner: &Owner, count: usize) -> anyhow::Result<Vec<f64>> {
    let client = Client::new(server.url())?;
    let email = &owner.grant.user.email;
    let grant = client.login(email, PASSWORD).await?;
    let client = client.with_grant(&grant);
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let some = AT_ONCE.min(count - sockets.len());
        let options = ConnectOptions::default();
        let connects = (0..some).map(|_| client.connect(&options));
        sockets.extend(try_join_all(connects).await?);
    }
    let listening = sockets.into_iter().map(|socket| {
        tokio::spawn(async move {
            loop {
                match socket.next_frame().await {
                    Ok(_) => {}
                    Err(ClientError::Closed { code: LOGGED_OUT, .. }) => return Ok(Instant::now()),
                    Err(error) => bail!("a socket ended for another reason: {error}"),
                }
            }
        })
    });
    let listening = listening.collect::<Vec<_>>();
    let started_at = Instant::now();
    client.logout().await?;
    let ends = join_all(listening).await;
    ends.into_iter().map(|ended| Ok(ms(ended??.duration_since(started_at)))).collect()
}

fn p99(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    let at = (samples.len() * 99 / 100).min(samples.len().saturating_sub(1));
    samples.get(at).copied().unwrap_or_default()
}
