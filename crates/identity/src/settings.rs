//! How a provider of logins is configured.

use std::time::Duration;

use iris_auth::PlainSecret;
use url::{Host, Url};

/// How long a provider may take for one answer, unless somebody says otherwise.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// GitHub, or a GitHub Enterprise Server: OAuth and an API of its own.
    GitHub,
    /// Google: `OpenID` Connect at a known place.
    Google,
    /// `OpenID` Connect by discovery.
    Oidc,
}

impl ProviderKind {
    /// The kind of that name in the configuration.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "github" => Some(Self::GitHub),
            "google" => Some(Self::Google),
            "oidc" => Some(Self::Oidc),
            _ => None,
        }
    }

    /// Where it is, unless somebody says otherwise.
    fn issuer(self) -> Option<&'static str> {
        match self {
            Self::GitHub => Some("https://github.com"),
            Self::Google => Some("https://accounts.google.com"),
            Self::Oidc => None,
        }
    }

    fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::GitHub => &["read:user", "user:email"],
            Self::Google | Self::Oidc => &["openid", "email", "profile"],
        }
    }
}

/// Why a provider cannot be configured so. The text is the second half of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Nobody says where it is.
    #[error("needs an `issuer`")]
    NoIssuer,
    /// The issuer cannot be one.
    #[error(
        "has an `issuer` that is no `https` URL without user, query and fragment, nor `http` on this machine"
    )]
    BadIssuer,
    /// It is asked for no `OpenID` Connect.
    #[error("has `scopes` without `openid`")]
    NoOpenid,
}

/// How one provider is asked, and as whom.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// What it speaks.
    pub kind: ProviderKind,
    /// What people are shown.
    pub title: String,
    /// What it calls itself, exactly.
    pub issuer: String,
    /// What it calls us.
    pub client_id: String,
    /// What shows that we are it; none for a client that keeps none.
    pub client_secret: Option<PlainSecret>,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// How long it may take for one answer.
    pub answer_max: Duration,
    /// Whether its addresses count as verified whatever it says, as those of one's own company.
    pub trusts_email: bool,
}

impl ProviderSettings {
    /// Fills in what nobody said, and refuses what cannot be.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn new(
        kind: ProviderKind,
        title: String,
        issuer: Option<String>,
        client_id: String,
    ) -> Result<Self, SettingsError> {
        let issuer = issuer.or_else(|| kind.issuer().map(str::to_owned));
        let issuer = issuer.ok_or(SettingsError::NoIssuer)?;
        let url = Url::parse(&issuer).map_err(|_| SettingsError::BadIssuer)?;
        let is_plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !is_plain || !is_safe(&url) {
            return Err(SettingsError::BadIssuer);
        }
        let scopes = kind.scopes().iter().map(|scope| (*scope).to_owned()).collect();
        Ok(Self {
            kind,
            title,
            issuer,
            client_id,
            client_secret: None,
            scopes,
            answer_max: ANSWER_MAX,
            trusts_email: false,
        })
    }

    /// Asks for other scopes than usual.
    ///
    /// # Errors
    /// [`SettingsError::NoOpenid`].
    pub fn with_scopes(mut self, scopes: Vec<String>) -> Result<Self, SettingsError> {
        let is_openid = !matches!(self.kind, ProviderKind::GitHub);
        if is_openid && !scopes.iter().any(|scope| scope == "openid") {
            return Err(SettingsError::NoOpenid);
        }
        self.scopes = scopes;
        Ok(self)
    }
}

/// Whether what is sent there is read by nobody in between: TLS, or this machine.
pub(crate) fn is_safe(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => true,
        ("http", Some(Host::Domain(name))) => name == "localhost",
        ("http", Some(Host::Ipv4(address))) => address.is_loopback(),
        ("http", Some(Host::Ipv6(address))) => address.is_loopback(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(kind: ProviderKind, issuer: Option<&str>) -> Result<String, SettingsError> {
        let (title, id) = (String::new(), String::new());
        ProviderSettings::new(kind, title, issuer.map(str::to_owned), id).map(|it| it.issuer)
    }

    #[test]
    fn a_provider_is_reached_where_nobody_listens() {
        assert_eq!(issuer(ProviderKind::Google, None).unwrap(), "https://accounts.google.com");
        assert_eq!(issuer(ProviderKind::GitHub, None).unwrap(), "https://github.com");
        assert_eq!(issuer(ProviderKind::Oidc, None), Err(SettingsError::NoIssuer));
        for good in [
            "https://login.example",
            "https://login.example/realms/a",
            "http://127.0.0.1:3000",
            "http://localhost:3000/x/",
            "http://[::1]:3000",
        ] {
            // As it was written: it is compared, letter by letter.
            assert_eq!(issuer(ProviderKind::Oidc, Some(good)).unwrap(), good);
        }
        for bad in [
            "",
            "login.example",
            "http://login.example",
            "http://127.0.0.1.evil.example",
            "ftp://login.example",
            "https://login.example/?a=b",
            "https://login.example/#a",
            "https://ann:secret@login.example",
        ] {
            assert_eq!(
                issuer(ProviderKind::Oidc, Some(bad)),
                Err(SettingsError::BadIssuer),
                "{bad}"
            );
        }
    }

    #[test]
    fn without_openid_nobody_says_who_somebody_is() {
        let settings = |kind| {
            let issuer = Some("https://a.example".to_owned());
            ProviderSettings::new(kind, String::new(), issuer, String::new()).unwrap()
        };
        let email = || vec!["email".to_owned()];
        let refused = settings(ProviderKind::Oidc).with_scopes(email()).unwrap_err();
        assert_eq!(refused, SettingsError::NoOpenid);
        assert_eq!(settings(ProviderKind::GitHub).with_scopes(email()).unwrap().scopes, email());
    }
}
