//! The root database: users, authentication sessions, projects and members. The node starts it.

use actix::{Actor, Context, Handler, Supervised};
use iris_store::Command;
use iris_store::root::RootDatabase;

use crate::Write;

/// Owns the write handle of the root database. It has no other state, so a restart loses nothing.
pub struct Root {
    database: Option<RootDatabase>,
}

impl Root {
    pub(crate) fn new(database: RootDatabase) -> Self {
        Self { database: Some(database) }
    }
}

impl Actor for Root {
    type Context = Context<Self>;
}

impl Supervised for Root {}

impl<C: Command> Handler<Write<C>> for Root {
    type Result = ();

    fn handle(&mut self, write: Write<C>, _: &mut Context<Self>) {
        if let Some(database) = &self.database {
            let receipt = database.writer().submit(write.command, write.context);
            // A caller who went away does not need the receipt; the command is committed all the same.
            drop(write.receipt.send(receipt));
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
        actix::MessageResult(self.database.take())
    }
}
