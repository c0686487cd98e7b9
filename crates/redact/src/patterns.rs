//! What looks like a secret of a well-known kind.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::MARK;

/// Each alternative is the form of one issuer's secrets, as that documents it; of the last three what stands
/// in `keep` is not secret.
const PATTERNS: &str = r"(?x-u)
    # OpenAI, Anthropic and others that follow them
    \bsk-[A-Za-z0-9_-]{20,}
    # GitHub
    | \bgh[pousr]_[A-Za-z0-9]{36,} | \bgithub_pat_[A-Za-z0-9_]{22,}
    # GitLab
    | \bglpat-[A-Za-z0-9_-]{20,}
    # Amazon
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    # Google
    | \bAIza[0-9A-Za-z_-]{35}
    # Slack
    | \bxox[abeoprs]-[A-Za-z0-9-]{10,}
    # Stripe
    | \b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}
    # Our own: API keys, refresh tokens, tickets, one-time secrets
    | \biris_[A-Za-z0-9]{36}\b | \bir[rto]_[A-Za-z0-9_-]{22,}
    # Signed tokens (RFC 7519)
    | \beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}
    # Private keys (RFC 7468)
    | -----BEGIN\x20[A-Z\x20]*PRIVATE\x20KEY-----[A-Za-z0-9+/=\s\\]*-----END\x20[A-Z\x20]*PRIVATE\x20KEY-----
    # The credentials of a request (RFC 6750, RFC 7617)
    | (?P<keep>\b(?:[Bb]earer|[Bb]asic)\x20) [A-Za-z0-9+/=._~-]{16,}
    # The password of a URL
    | (?P<keep_user>://(?u:[^/\x20\t\r\n:@\x22']){0,64}:) (?u:[^/\x20\t\r\n:@\x22'\[]){3,128} (?P<keep_at>@)
";

static SECRETS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(PATTERNS).ok());

pub(crate) fn mask(text: &str) -> Cow<'_, str> {
    let Some(secrets) = &*SECRETS else { return Cow::Borrowed(text) };
    secrets.replace_all(text, |found: &Captures<'_>| {
        let kept = |name| found.name(name).map_or("", |kept| kept.as_str());
        [kept("keep"), kept("keep_user"), MARK, kept("keep_at")].concat()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_each_kind_are_hidden() {
        assert!(SECRETS.is_some());
        let twenty = "aB3aB3aB3aB3aB3aB3aB";
        let forty = twenty.repeat(2);
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE+/=\nabc\n-----END RSA PRIVATE KEY-----";
        let secrets = [
            format!("sk-ant-{twenty}"),
            format!("ghp_{forty}"),
            format!("github_pat_{forty}"),
            format!("glpat-{twenty}"),
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            format!("AIza{}", &forty[..35]),
            format!("xoxb-{twenty}"),
            format!("sk_live_{twenty}"),
            format!("iris_{}", &forty[..36]),
            format!("irr_{forty}"),
            format!("eyJhbGciOiJI.eyJzdWIiOiIx.{twenty}"),
            key.to_owned(),
            // As it stands in JSON.
            key.replace('\n', "\\n"),
        ];
        for secret in secrets {
            assert_eq!(mask(&format!("a {secret} b")), format!("a {MARK} b"));
        }
        assert_eq!(
            mask(&format!("Authorization: Bearer {twenty}")),
            format!("Authorization: Bearer {MARK}")
        );
        assert_eq!(mask("postgres://me:pass@host/db"), format!("postgres://me:{MARK}@host/db"));
        assert_eq!(mask("redis://:pass@host"), format!("redis://:{MARK}@host"));
    }

    #[test]
    fn what_is_no_secret_is_left_alone() {
        let texts = [
            "task-force sk-short risk-of-something-very-long-indeed",
            "http://host:8080/path?a=b@c",
            "https://host/a:b@c",
            "bearer of news, basic facts",
            "commit 0123456789abcdef0123456789abcdef01234567",
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
            "iris_core::session::actor_of_this_very_long_name",
            "ses_0123456789abcdef0123456789abcdef",
        ];
        for text in texts {
            assert!(matches!(mask(text), Cow::Borrowed(_)), "{}", mask(text));
        }
    }
}
