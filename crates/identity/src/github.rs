//! GitHub, which speaks OAuth and has an API of its own in place of ID tokens
//! (<https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/authorizing-oauth-apps>).

use serde::Deserialize;
use url::Url;

use crate::ask::{self, Exchange, SecretPlace, Way, safe_url};
use crate::error::IdentityError;
use crate::provider::{Person, Return};

/// GitHub for everybody, whose API has a place of its own; that of an Enterprise Server is below it.
const PUBLIC: &str = "https://github.com";
const PUBLIC_API: &str = "https://api.github.com";

/// Where people agree.
pub(crate) fn authorization_endpoint(issuer: &str) -> Result<Url, IdentityError> {
    safe_url(&format!("{}/login/oauth/authorize", issuer.trim_end_matches('/')))
}

fn api(issuer: &str) -> String {
    match issuer.trim_end_matches('/') {
        PUBLIC => PUBLIC_API.to_owned(),
        enterprise => format!("{enterprise}/api/v3"),
    }
}

#[derive(Deserialize)]
struct User {
    /// Stays the same when somebody takes another name.
    id: u64,
    login: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    email: String,
    primary: bool,
    verified: bool,
}

/// Finds out who came back.
pub(crate) async fn identify(way: Way<'_>, back: Return<'_>) -> Result<Person, IdentityError> {
    let Return { code, verifier, redirect_uri, nonce: _, from } = back;
    let issuer = way.settings.issuer.as_str();
    if from.is_some_and(|from| from != issuer) {
        return Err(IdentityError::OtherProvider);
    }
    let place = safe_url(&format!("{}/login/oauth/access_token", issuer.trim_end_matches('/')))?;
    let exchange = Exchange { code, verifier, redirect_uri };
    let tokens = ask::exchange(way, &place, SecretPlace::Body, exchange).await?;
    let token = tokens.access();
    let token = token.ok_or(IdentityError::Malformed { expected: "an access token" })?;
    let api = api(issuer);
    let user = ask::get(way, &safe_url(&format!("{api}/user"))?, Some(&token)).await?;
    let user: User = serde_json::from_slice(&user)
        .map_err(|_| IdentityError::Malformed { expected: "a user" })?;
    let place = safe_url(&format!("{api}/user/emails"))?;
    let emails = match ask::get(way, &place, Some(&token)).await {
        Ok(emails) => serde_json::from_slice(&emails)
            .map_err(|_| IdentityError::Malformed { expected: "a list of addresses" })?,
        // People may leave the scope out.
        Err(IdentityError::Status { status: 403 | 404 }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let email = best(emails);
    let email_verified = email.as_ref().is_some_and(|email| email.verified);
    let names = [Some(user.login), user.name].into_iter().flatten();
    Ok(Person {
        issuer: issuer.to_owned(),
        subject: user.id.to_string(),
        email: email.map(|email| email.email),
        email_verified,
        names: names.collect(),
    })
}

/// The one that somebody reads, if it is known to be theirs; else another one that is.
fn best(emails: Vec<Address>) -> Option<Address> {
    emails.into_iter().max_by_key(|email| (email.verified, email.primary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verified_address_is_better_than_a_primary_one() {
        let email =
            |email: &str, primary, verified| Address { email: email.to_owned(), primary, verified };
        let best = |emails| best(emails).map(|email| email.email);
        let all = || vec![email("a", false, true), email("b", true, true), email("c", true, false)];
        assert_eq!(best(all()).as_deref(), Some("b"));
        let unverified = vec![email("a", false, true), email("c", true, false)];
        assert_eq!(best(unverified).as_deref(), Some("a"));
        assert_eq!(best(Vec::new()), None);
    }

    #[test]
    fn the_api_of_an_enterprise_server_is_below_it() {
        assert_eq!(api("https://github.com"), "https://api.github.com");
        assert_eq!(api("https://github.com/"), "https://api.github.com");
        assert_eq!(api("https://git.example"), "https://git.example/api/v3");
    }
}
