//! The root database: users, authentication sessions, projects and members. The node starts it.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler};
use iris_store::root::{RootDatabase, RootReader};
use iris_store::{Command, StoreError};
use serde_json::{Value, json};

use crate::Write;
use crate::permissions::ServerRules;
use crate::supervision::{Address, Supervise, Vitals};

/// How often it is looked whether the database has to be opened again.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Opens the root database again, after its writer died or it turned out to be damaged.
pub(crate) type OpenRoot = Arc<dyn Fn() -> Result<RootDatabase, StoreError> + Send + Sync>;

/// How the root database is written and read.
#[derive(Clone)]
pub(crate) struct RootAccess {
    /// Takes commands.
    pub(crate) address: Address<Root>,
    /// For queries.
    pub(crate) reader: RootReader,
    /// The permission rules for all projects.
    pub(crate) rules: Arc<ServerRules>,
}

/// Owns the write handle of the root database. It has no other state, so a restart loses nothing.
pub struct Root {
    vitals: Arc<Vitals>,
    /// What everybody reads through, also when the database is opened again.
    reader: RootReader,
    /// None once it was given away, or while no new one can be opened.
    database: Option<RootDatabase>,
    is_given_away: bool,
    open: OpenRoot,
}

impl Root {
    pub(crate) fn new(vitals: Arc<Vitals>, database: RootDatabase, open: OpenRoot) -> Self {
        let reader = database.reader();
        Self { vitals, reader, database: Some(database), is_given_away: false, open }
    }
}

impl Actor for Root {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, |root, _| root.mend());
    }
}

impl Root {
    /// Opens a database again that turned out to be damaged, once what is there can be opened. Who
    /// notices damage may only read, and until somebody puts the file back nothing is to be done.
    fn mend(&mut self) {
        let is_damaged = |database: &RootDatabase| database.damage().is_some();
        if !self.database.as_ref().is_some_and(is_damaged) {
            return;
        }
        match (self.open)() {
            Ok(opened) => {
                tracing::warn!("the root database was damaged and is opened again");
                self.reader.follow(&opened);
                self.database = Some(opened);
            }
            Err(error) => tracing::error!(%error, "the root database cannot be opened again"),
        }
    }
}

crate::supervised!(Root);

impl Supervise for Root {
    /// A writer that died is replaced. That blocks for the milliseconds of opening a file, in a moment in
    /// which nobody could be served anyway.
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        let mut database = self.database.take().filter(|database| database.writer().is_alive());
        if database.is_none() && !self.is_given_away {
            let opened = (self.open)().map_err(|error| error.to_string())?;
            self.reader.follow(&opened);
            database = Some(opened);
        }
        let (vitals, open) = (Arc::clone(&self.vitals), Arc::clone(&self.open));
        let reader = self.reader.clone();
        Ok(Self { vitals, reader, database, is_given_away: self.is_given_away, open })
    }

    fn observe(&self) -> Value {
        let waiting = self.database.as_ref().map(|database| database.writer().queue_depth());
        json!({ "isOpen": self.database.is_some(), "commandsWaiting": waiting })
    }
}

impl<C: Command> Handler<Write<C>> for Root {
    type Result = ();

    fn handle(&mut self, write: Write<C>, ctx: &mut Context<Self>) {
        let Some(database) = &self.database else { return };
        #[cfg(feature = "faults")]
        if self.vitals.supervision().faults().kills_writer::<Write<C>>(&self.vitals) {
            drop(database.writer().kill());
        }
        let receipt = database.writer().submit(write.command, write.context);
        // A caller who went away does not need the receipt; the command is committed all the same.
        drop(write.receipt.send(receipt));
        if !database.writer().is_alive() {
            self.vitals.fail("the writer thread of the root database is gone");
            ctx.stop();
        }
    }
}

/// Ask: gives the database away so that it can be closed; every write after this fails.
#[derive(actix::Message)]
#[rtype(result = "Option<RootDatabase>")]
pub(crate) struct TakeDatabase;

impl Handler<TakeDatabase> for Root {
    type Result = actix::MessageResult<TakeDatabase>;

    fn handle(&mut self, _: TakeDatabase, _: &mut Context<Self>) -> Self::Result {
        self.is_given_away = true;
        actix::MessageResult(self.database.take())
    }
}
