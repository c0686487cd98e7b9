//! A server and those who use it.

#[path = "../../crates/mcp/tests/session/oauthfake.rs"]
#[expect(clippy::expect_used, reason = "a helper of a test fails like the test itself")]
#[expect(dead_code, reason = "the tests of the client use all of it")]
pub(crate) mod oauthfake;
#[path = "../../crates/mcp/tests/session/webfake.rs"]
#[expect(clippy::expect_used, reason = "a helper of a test fails like the test itself")]
#[expect(dead_code, reason = "the tests of the client use all of it")]
mod webfake;

use std::cell::{Cell, RefCell};

use iris_actors::supervision::faults::Armed;
use iris_actors::supervision::install_panic_hook;
use iris_identity::ProviderKind;
use iris_testkit::{AppOptions, IdentityProvider, Person, TestApp, spawn_app_with};

use crate::player::Player;
use oauthfake::OauthFake;

/// A server, its administrator and two users.
pub(crate) struct Stage {
    pub(crate) app: TestApp,
    pub(crate) operator: Person,
    pub(crate) person: Person,
    pub(crate) friend: Person,
    login: OauthFake,
    identities: IdentityProvider,
}

impl Stage {
    /// A server that tells of panics as the command does.
    pub(crate) async fn set(mut options: AppOptions) -> Self {
        install_panic_hook();
        let login = OauthFake::start().await;
        options.egress_allow.push(login.address.to_string().parse().unwrap());
        let identities = IdentityProvider::start().await;
        let settings = identities.settings(ProviderKind::Oidc);
        options.oauth.insert("fake".to_owned(), settings);
        let app = spawn_app_with(options).await;
        let operator = app.admin().await;
        let (person, friend) = (app.user("ann").await, app.user("fay").await);
        Self { app, operator, person, friend, login, identities }
    }

    /// Somebody who leaves the actors at these paths alone, and in whose first project something goes
    /// wrong.
    pub(crate) fn player(&self, spared: &[String], armed: Option<Armed>) -> Player<'_> {
        Player {
            app: &self.app,
            person: &self.person,
            friend: &self.friend,
            operator: &self.operator,
            login: &self.login,
            identities: &self.identities,
            spared: spared.to_vec(),
            armed: Cell::new(armed),
            attempts: RefCell::default(),
        }
    }
}
