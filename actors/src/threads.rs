//! Threads apart from those of the actors, for what others send: whatever it takes to read it holds up no
//! actor.

use std::io;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

/// As many as read side by side.
const THREADS: usize = 2;

/// A few threads, started for the first that needs them.
#[derive(Debug)]
pub struct Threads {
    name: &'static str,
    runtime: Mutex<Option<Runtime>>,
}

impl Threads {
    /// What all of them are called.
    pub(crate) const NAMES: [&'static str; 2] = ["mcp", "provider"];

    /// Those that speak with MCP servers.
    pub fn for_mcp() -> Self {
        Self { name: "mcp", runtime: Mutex::default() }
    }

    /// Those that read the answers of model providers.
    pub fn for_providers() -> Self {
        Self { name: "provider", runtime: Mutex::default() }
    }

    /// Where tasks are spawned on them.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub(crate) fn handle(&self) -> io::Result<Handle> {
        let mut runtime = self.runtime.lock();
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let started = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name(self.name)
            .enable_all()
            .build()?;
        let handle = started.handle().clone();
        *runtime = Some(started);
        Ok(handle)
    }
}

impl Drop for Threads {
    /// Waits for nothing: what is read there is of interest to nobody any more.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}
