//! The provider and a server that asks it.

use anyhow::Context;
use tempfile::TempDir;

use crate::conversation::Owner;
use crate::provider::Provider;
use crate::server::{Server, data_dir};

/// Everything that runs, until it is dropped.
pub(crate) struct Scene {
    pub(crate) provider: Provider,
    pub(crate) server: Server,
    pub(crate) owner: Owner,
    pub(crate) data_dir: TempDir,
}

impl Scene {
    /// Starts it.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let (provider, data_dir) = (Provider::start()?, data_dir()?);
        let settings = [
            ("IRIS_PROVIDERS__FAKE__KIND", "openai-compatible"),
            ("IRIS_PROVIDERS__FAKE__BASE_URL", provider.url.as_str()),
            ("IRIS_DEFAULT_MODEL", "fake/m"),
        ];
        let server = Server::start_with(data_dir.path(), &settings)?;
        let owner = Owner::of(&server).await.context("nobody could sign in")?;
        Ok(Self { provider, server, owner, data_dir })
    }
}
