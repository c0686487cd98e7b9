//! Logins at other providers (OAuth 2.0 and `OpenID` Connect), and who users are there.
//!
//! Bodies that touch rights refuse fields that they do not know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AuthGrant, IdentityId};

// Logins.
payloads! {
    /// A provider at which people may log in.
    OauthProvider {
        /// As the configuration names it, and as it stands in URLs.
        id: String,
        /// What people are shown.
        title: String,
        /// Where a browser begins a login, without a query: the host to which it comes back. Absent where the
        /// server does not know how browsers reach it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start_url: Option<String>,
    }
    /// Lists the providers at which people may log in.
    OauthList {}
    /// The providers at which people may log in.
    OauthProviderPage {
        /// By their ids.
        providers: Vec<OauthProvider>,
    }
    /// Begins a login in a browser, or a link that `identity.link` prepared.
    #[serde(deny_unknown_fields)]
    OauthStart {
        /// The provider.
        provider: String,
        /// Where the browser goes in the end, with a code for `auth.oauth.redeem`: one of the configured places,
        /// or `http://127.0.0.1:PORT/callback` or `http://[::1]:PORT/callback` for a program on the same
        /// machine. Without one the answer to the browser is the grant itself.
        #[serde(default)]
        redirect: Option<String>,
        /// SHA-256 of the verifier that `auth.oauth.redeem` is going to show, in base64url without padding (RFC
        /// 7636 section 4.2). Needed with `redirect`.
        #[serde(default)]
        code_challenge: Option<String>,
        /// `S256`, if anything.
        #[serde(default)]
        code_challenge_method: Option<String>,
        /// The secret of an invitation, for who has no account yet.
        #[serde(default)]
        invitation: Option<String>,
        /// What `identity.link` gave; with it nothing else is given.
        #[serde(default)]
        link: Option<String>,
    }
    /// Where a browser is sent, and what binds the login to it.
    OauthStarted {
        /// For the header `Location`.
        url: String,
        /// For a cookie that only this server gets back; a secret.
        browser: String,
    }
    /// What a browser brings back from a provider.
    OauthCallback {
        /// The provider.
        provider: String,
        /// Names what was begun.
        #[serde(default)]
        state: Option<String>,
        /// For the provider's tokens.
        #[serde(default)]
        code: Option<String>,
        /// Why there is no code, such as `access_denied`.
        #[serde(default)]
        error: Option<String>,
        /// Which provider it comes from, where it says so (RFC 9207).
        #[serde(default)]
        iss: Option<String>,
    }
    /// What became of a login in a browser: one of the two.
    OauthReturned {
        /// Where the browser is sent, with a `code`, or with an `error`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// The login, where there is nowhere to be sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grant: Option<AuthGrant>,
    }
    /// Begins an authentication session with the code that a browser brought from a login, once and within a
    /// minute.
    #[serde(deny_unknown_fields)]
    OauthRedeem {
        /// The code.
        code: String,
        /// Whose SHA-256 was told when the login began: 43 to 128 characters (RFC 7636 section 4.1).
        code_verifier: String,
    }
}

// Who users are elsewhere.
payloads! {
    /// Who a user is at another provider: they may log in there.
    Identity {
        /// The identity.
        id: IdentityId,
        /// The provider, as the configuration named it when it was linked.
        provider: String,
        /// What the provider calls itself.
        issuer: String,
        /// What the provider calls the user.
        subject: String,
        /// The address that the provider told last; it decides nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        email: Option<String>,
        /// Milliseconds since 1970 UTC.
        created_at: i64,
        /// When the user logged in with it last, in milliseconds since 1970 UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_login_at: Option<i64>,
    }
    /// One identity.
    IdentityPayload {
        /// What is known of it.
        identity: Identity,
    }
    /// Lists the identities of the caller.
    IdentityList {}
    /// The identities of a user.
    IdentityPage {
        /// Oldest first.
        identities: Vec<Identity>,
    }
    /// Prepares a link of the caller's account with who they are at a provider.
    #[serde(deny_unknown_fields)]
    IdentityLink {
        /// The provider.
        provider: String,
        /// Where the browser goes in the end, with a code for `identity.create`; as for `auth.oauth.start`.
        redirect: String,
        /// As for `auth.oauth.start`.
        code_challenge: String,
        /// As it is now. An account without a password needs a login that is not older than five minutes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        current_password: Option<String>,
    }
    /// Where a link begins.
    IdentityLinkStarted {
        /// What the user opens in a browser, once.
        url: String,
        /// Until when, in milliseconds since 1970 UTC.
        expires_at: i64,
    }
    /// Links the caller's account with who they turned out to be at the provider.
    #[serde(deny_unknown_fields)]
    IdentityCreate {
        /// What the browser brought.
        code: String,
        /// Whose SHA-256 was told to `identity.link`.
        code_verifier: String,
    }
    /// Takes an identity of the caller away.
    #[serde(deny_unknown_fields)]
    IdentityDelete {
        /// The identity.
        identity_id: IdentityId,
    }
}
