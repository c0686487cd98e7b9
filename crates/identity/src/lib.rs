//! Who somebody is at another provider of logins: `OpenID` Connect by discovery, and GitHub, which speaks OAuth
//! alone. The authorization code flow with PKCE (RFC 6749 section 4.1, RFC 7636).
//!
//! What a provider says is asked through the egress client: its answers are bounded in size and time, and
//! nothing is followed elsewhere. Deliberately absent: storage, the clock, random numbers, accounts, and
//! what is kept of a login between its beginning and its end.

mod ask;
mod error;
mod github;
mod oidc;
mod provider;
mod settings;

pub use error::IdentityError;
pub use provider::{Begin, Person, Provider, Return, exceptions};
pub use settings::{ProviderKind, ProviderSettings, SettingsError};
