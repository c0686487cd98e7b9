//! Whether the time of an answer tells who has an account: logins of nobody beside those with a wrong
//! password, in turns.

use std::time::Instant;

use anyhow::{bail, ensure};
use iris_client::{Client, ClientError};
use iris_protocol::ErrorCode;

use crate::conversation::Owner;
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

/// The medians may differ by as much.
const DIFFERENCE_MS_MAX: f64 = 2.0;
/// Or by this part of them, on a slow machine.
const DIFFERENCE_PART_MAX: f64 = 0.05;
const LOGINS: usize = 300;
/// The first ones find nothing in any cache.
const WARM_UP: usize = 20;
const NO_LIMIT: [(&str, &str); 1] = [("IRIS_LOGIN_FAILURES_PER_10_MINUTES", "0")];

/// Measures both kinds, each in every other place.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let data_dir = data_dir()?;
    let server = Server::start_with(data_dir.path(), &NO_LIMIT)?;
    let owner = Owner::of(&server).await?;
    let known = owner.grant.user.email.clone();
    let client = Client::new(server.url())?;
    let (mut of_known, mut of_nobody) = (Vec::new(), Vec::new());
    for n in 0..WARM_UP + LOGINS {
        // Of the same length: what differs is only whether there is one.
        let nobody = format!("{n:0width$}@x", width = known.len().saturating_sub(2));
        let is_first_known = n % 2 == 0;
        let (first, second) = if is_first_known { (&known, &nobody) } else { (&nobody, &known) };
        let (first, second) = (refused(&client, first).await?, refused(&client, second).await?);
        let (wrong, unknown) = if is_first_known { (first, second) } else { (second, first) };
        if n >= WARM_UP {
            of_known.push(wrong);
            of_nobody.push(unknown);
        }
    }
    server.stop()?;
    ensure!(of_known.len() == LOGINS, "logins are missing");
    let (known, nobody) = (median(&of_known), median(&of_nobody));
    Ok(vec![Figure {
        name: "login of nobody beside a wrong password, difference of the medians",
        target: Some(DIFFERENCE_MS_MAX.max(known * DIFFERENCE_PART_MAX)),
        unit: "ms",
        samples: vec![(known - nobody).abs()],
        comparison: format!("wrong password {known:.2} ms, nobody {nobody:.2} ms"),
    }])
}

/// How long the refusal of a login takes, in milliseconds.
async fn refused(client: &Client, email: &str) -> anyhow::Result<f64> {
    let started_at = Instant::now();
    match client.login(email, "not the password").await {
        Err(ClientError::Api(error)) if error.code == ErrorCode::Unauthenticated => {
            Ok(ms(started_at.elapsed()))
        }
        other => bail!("a wrong login was answered with {other:?}"),
    }
}
