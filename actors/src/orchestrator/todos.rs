//! The to-do list of a session, as its tools reach it.

use std::fmt;

use futures_util::future::BoxFuture;
use iris_protocol::{SessionId, Todo, TodoId, UserId};
use iris_store::project::{NewTodo, WriteTodos};
use iris_store::{StoreError, WriteContext};
use iris_tools::{TodoDraft, TodoStore};

use super::Assignment;
use crate::record;
use crate::session::SessionPlace;

/// The to-do list of the session in which a run works.
pub(super) struct SessionTodos {
    place: SessionPlace,
    starter: UserId,
}

impl SessionTodos {
    pub(super) fn of(assignment: &Assignment) -> Self {
        let (place, starter) = (assignment.place.clone(), assignment.run.started_by.clone());
        Self { place, starter }
    }
}

impl fmt::Debug for SessionTodos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionTodos").field(&self.place.id).finish()
    }
}

impl TodoStore for SessionTodos {
    fn todos(&self) -> BoxFuture<'static, Result<Vec<Todo>, String>> {
        let (reader, id) = (self.place.project.reader.clone(), self.place.id.clone());
        Box::pin(async move { reader.todos(id.clone()).await.map_err(|e| problem(&id, &e)) })
    }

    fn replace(&self, todos: Vec<TodoDraft>) -> BoxFuture<'static, Result<Vec<Todo>, String>> {
        let (services, id) = (&self.place.services, self.place.id.clone());
        let todos = todos.into_iter().map(|draft| NewTodo {
            id: draft.id,
            new_id: TodoId::from_bits(services.ids.next_bits()),
            content: draft.content,
            status: draft.status,
            priority: draft.priority,
        });
        let command = WriteTodos {
            session_id: id.clone(),
            todos: todos.collect(),
            by: self.starter.clone(),
            at: services.clock.now_ms(),
        };
        let written = record(&self.place.project.address, command, WriteContext::default());
        Box::pin(async move {
            let written = written.await.map_err(|error| problem(&id, &error))?;
            Ok(written.output)
        })
    }
}

/// What the model is told; the log has the rest.
fn problem(id: &SessionId, error: &StoreError) -> String {
    tracing::error!(session.id = id.as_str(), %error, "a to-do list is out of reach");
    error.to_api().message
}
