//! What it costs to know who asks: the decision and the check of a key in this process, sockets while many
//! log in, and how soon a login that ended has no sockets any more.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use futures_util::future::{join, join_all, try_join_all};
use iris_auth::{ApiKeySecret, Caller, CallerUser, Resource, authorize};
use iris_client::{Client, ClientError, ConnectOptions, Socket};
use iris_protocol::{ErrorCode, Operation, Ping, ProjectId, Role, UserId};
use tokio::sync::Barrier;

use crate::conversation::Owner;
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

const DECISION_US_MAX: f64 = 2.0;
const KEY_US_MAX: f64 = 5.0;
const ECHO_MS_MAX: f64 = 20.0;
const CLOSED_MS_MAX: f64 = 1_000.0;
/// Decisions, and keys, of one sample.
const TIMES: u32 = 20_000;
const SAMPLES: usize = 15;
const LOGINS: usize = 100;
/// Pings before the logins, to have something beside those that they meet.
const QUIET_PINGS: usize = 500;
const SOCKETS: usize = 1_000;
/// Handshakes at the same time.
const AT_ONCE: usize = 50;
const NO_LIMITS: [(&str, &str); 4] = [
    ("IRIS_CONNECTIONS_PER_USER_MAX", "0"),
    ("IRIS_REQUESTS_PER_SECOND", "0"),
    ("IRIS_PUBLIC_REQUESTS_PER_MINUTE", "0"),
    ("IRIS_LOGIN_FAILURES_PER_10_MINUTES", "0"),
];

/// Measures all four, the last two on one server.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let mut figures = vec![decision()?, key()?];
    let data_dir = data_dir()?;
    let server = Server::start_with(data_dir.path(), &NO_LIMITS)?;
    let owner = Owner::of(&server).await?;
    figures.push(echo(&server, &owner).await?);
    figures.push(revocation(&server, &owner).await?);
    server.stop()?;
    Ok(figures)
}

/// Each operation in turn, for a member of a project.
fn decision() -> anyhow::Result<Figure> {
    let (user_id, project) = (UserId::from_bits(1), ProjectId::from_bits(2));
    let caller = Caller::User(CallerUser { user_id, is_admin: false, key: None });
    let resource = Resource::Project { id: Some(&project), role: Some(Role::Member) };
    let operations = Operation::ALL;
    let samples = per_call(|n| {
        let operation = operations.get(n % operations.len()).context("there are operations")?;
        black_box(
            authorize(black_box(&caller), black_box(*operation), black_box(resource)).is_ok(),
        );
        Ok(())
    })?;
    let walk = per_call(|n| {
        black_box(operations.get(n % operations.len()));
        Ok(())
    })?;
    Ok(Figure {
        name: "a decision whether somebody may",
        target: Some(DECISION_US_MAX),
        unit: "us",
        samples,
        comparison: format!("walking over the operations alone {:.3} us", median(&walk)),
    })
}

/// What comes before the row of a key is looked up: its shape and check sum, and the hash that it is found by.
fn key() -> anyhow::Result<Figure> {
    let key = ApiKeySecret::random()?;
    let text = key.as_str();
    let samples = per_call(|_| {
        ensure!(ApiKeySecret::is_meant(black_box(text)) && ApiKeySecret::is_well_formed(text));
        black_box(ApiKeySecret::hash_of(black_box(text)));
        Ok(())
    })?;
    let compared = per_call(|_| {
        black_box(black_box(text) == black_box(text));
        Ok(())
    })?;
    Ok(Figure {
        name: "an API key, checked and hashed",
        target: Some(KEY_US_MAX),
        unit: "us",
        samples,
        comparison: format!("comparing the texts alone {:.3} us", median(&compared)),
    })
}

/// Microseconds of one call, over samples of many.
fn per_call(mut call: impl FnMut(usize) -> anyhow::Result<()>) -> anyhow::Result<Vec<f64>> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let started_at = Instant::now();
        for n in 0..TIMES as usize {
            call(n)?;
        }
        samples.push(ms(started_at.elapsed()) * 1_000.0 / f64::from(TIMES));
    }
    Ok(samples)
}

/// Pings of one socket while a hundred log in at once.
async fn echo(server: &Server, owner: &Owner) -> anyhow::Result<Figure> {
    let socket = owner.client.connect(&ConnectOptions::default()).await?;
    let mut quiet = Vec::new();
    for _ in 0..QUIET_PINGS {
        quiet.push(ping(&socket).await?);
    }
    let barrier = Arc::new(Barrier::new(LOGINS + 1));
    let logins = (0..LOGINS).map(|n| {
        let (barrier, url) = (Arc::clone(&barrier), server.url().to_owned());
        tokio::spawn(async move {
            let client = Client::new(&url)?;
            barrier.wait().await;
            let email = format!("nobody{n}@example.com");
            match client.login(&email, "not the password").await {
                Err(ClientError::Api(error))
                    if [ErrorCode::Unauthenticated, ErrorCode::Overloaded]
                        .contains(&error.code) =>
                {
                    Ok(error.code)
                }
                other => bail!("a login was answered with {other:?}"),
            }
        })
    });
    let logins = join_all(logins.collect::<Vec<_>>());
    let mut busy = Vec::new();
    let pings = async {
        barrier.wait().await;
        Ok::<_, anyhow::Error>(())
    };
    let mut logins = std::pin::pin!(join(logins, pings));
    let answers = loop {
        tokio::select! {
            (answers, begun) = &mut logins => {
                begun?;
                break answers;
            }
            took = ping(&socket) => busy.push(took?),
        }
    };
    let answers = answers.into_iter().map(|it| it?).collect::<anyhow::Result<Vec<_>>>()?;
    let hashed = answers.iter().filter(|code| **code == ErrorCode::Unauthenticated).count();
    ensure!(hashed > 0 && !busy.is_empty(), "nobody logged in meanwhile");
    socket.close().await;
    Ok(Figure {
        name: "ping while 100 log in at once, p99",
        target: Some(ECHO_MS_MAX),
        unit: "ms",
        samples: vec![p99(&mut busy)],
        comparison: format!(
            "nobody else {:.2} ms; {} pings, {hashed} logins hashed, the others told to come back",
            p99(&mut quiet),
            busy.len()
        ),
    })
}

async fn ping(socket: &Socket) -> anyhow::Result<f64> {
    let started_at = Instant::now();
    socket.call(None, Ping {}).await?;
    Ok(ms(started_at.elapsed()))
}

/// The sockets of a user whose every login ends.
async fn revocation(server: &Server, owner: &Owner) -> anyhow::Result<Figure> {
    let alone = closed(server, owner, 1).await?;
    let mut all = closed(server, owner, SOCKETS).await?;
    Ok(Figure {
        name: "1,000 sockets of a login that ended, closed, p99",
        target: Some(CLOSED_MS_MAX),
        unit: "ms",
        samples: vec![p99(&mut all)],
        comparison: format!("one socket {:.2} ms", median(&alone)),
    })
}

/// How long after the request to end it each socket of a login hears that it is closed.
async fn closed(server: &Server, owner: &Owner, count: usize) -> anyhow::Result<Vec<f64>> {
    let client = Client::new(server.url())?;
    let email = &owner.grant.user.email;
    let grant = client.login(email, "a long password").await?;
    let client = client.with_grant(&grant);
    let mut sockets = Vec::new();
    while sockets.len() < count {
        let some = AT_ONCE.min(count - sockets.len());
        let options = ConnectOptions::default();
        let connects = (0..some).map(|_| client.connect(&options));
        sockets.extend(try_join_all(connects).await?);
    }
    let started_at = Instant::now();
    let listening = sockets.into_iter().map(|socket| {
        tokio::spawn(async move {
            while socket.next_frame().await.is_ok() {}
            started_at.elapsed()
        })
    });
    let listening = listening.collect::<Vec<_>>();
    client.logout().await?;
    let ends = join_all(listening).await;
    ends.into_iter().map(|took| Ok::<_, anyhow::Error>(ms(took?))).collect()
}

fn p99(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    let at = (samples.len() * 99 / 100).min(samples.len().saturating_sub(1));
    samples.get(at).copied().unwrap_or_default()
}
