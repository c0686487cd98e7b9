//! `todoWrite` and `todoRead`: the list of what is to be done in a session, which people see too.

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use iris_agent::permissions::{Access, Target};
use iris_protocol::limits::{TODO_BYTES_MAX, TODOS_MAX};
use iris_protocol::{Todo, TodoId, TodoPriority, TodoStatus};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Tool;
use crate::builtin::{object_schema, parse};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::ToolOutput;
use crate::validation::too_long;

const WRITE: &str = "todoWrite";
const READ: &str = "todoRead";
const WRITE_DESCRIPTION: &str = "Replaces the to-do list of the session, which people see. Give \
                                 all entries, those that stay with their id.";
const READ_DESCRIPTION: &str = "Reads the to-do list of the session.";

/// The to-do list of the session in which a tool is called.
pub trait TodoStore: Debug + Send + Sync {
    /// The list, in its order.
    ///
    /// # Errors
    /// One sentence for the model.
    fn todos(&self) -> BoxFuture<'static, Result<Vec<Todo>, String>>;

    /// Puts these entries in the place of all that there are. Answers the list as it is then; it is
    /// durable.
    ///
    /// # Errors
    /// One sentence for the model; the list is as it was.
    fn replace(&self, todos: Vec<TodoDraft>) -> BoxFuture<'static, Result<Vec<Todo>, String>>;
}

/// An entry of a to-do list as a model writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TodoDraft {
    /// The entry of the list before that this is; one that the list does not have counts as none.
    pub id: Option<TodoId>,
    /// 1 to [`TODO_BYTES_MAX`] bytes.
    pub content: String,
    /// How far it is.
    pub status: TodoStatus,
    /// How much it matters.
    pub priority: TodoPriority,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    todos: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Option<String>,
    content: String,
    status: TodoStatus,
    priority: TodoPriority,
}

/// The tool `todoWrite`.
pub(crate) fn write_tool() -> TodoWrite {
    let entry = object_schema(
        &json!({
            "id": {"type": "string", "description": "Of an entry that stays; leave it out for a new one"},
            "content": {
                "type": "string",
                "minLength": 1,
                "maxLength": TODO_BYTES_MAX,
                "description": "What is to be done",
            },
            "status": {"enum": ["pending", "inProgress", "completed", "cancelled"]},
            "priority": {"enum": ["high", "medium", "low"]},
        }),
        &["content", "status", "priority"],
    );
    let todos = json!({"todos": {"type": "array", "maxItems": TODOS_MAX, "items": entry}});
    TodoWrite { parameters: object_schema(&todos, &["todos"]) }
}

/// The tool `todoRead`.
pub(crate) fn read_tool() -> TodoRead {
    TodoRead { parameters: object_schema(&json!({}), &[]) }
}

pub(crate) struct TodoWrite {
    parameters: Value,
}

impl Tool for TodoWrite {
    fn name(&self) -> &str {
        WRITE
    }

    fn description(&self) -> &str {
        WRITE_DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn writes(&self) -> bool {
        true
    }

    fn accesses(&self, _: &Value) -> Vec<Access> {
        vec![Access::of(WRITE, Target::Text(String::new()))]
    }

    fn summary(&self, input: &Value) -> String {
        let todos = input.get("todos").and_then(Value::as_array).map_or(0, Vec::len);
        format!("write a to-do list with {todos} entries")
    }

    fn run(
        &self,
        ctx: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        Box::pin(async move {
            let Input { todos } = parse(WRITE, &input)?;
            let todos = todos.into_iter().enumerate().map(|(index, entry)| draft(index, entry));
            let todos = todos.collect::<Result<_, _>>()?;
            let list = store(&ctx)?.replace(todos).await;
            list.map(|list| output(&list)).map_err(|problem| ToolError::Todos { problem })
        })
    }
}

pub(crate) struct TodoRead {
    parameters: Value,
}

impl Tool for TodoRead {
    fn name(&self) -> &str {
        READ
    }

    fn description(&self) -> &str {
        READ_DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn writes(&self) -> bool {
        false
    }

    fn accesses(&self, _: &Value) -> Vec<Access> {
        vec![Access::of(READ, Target::Text(String::new()))]
    }

    fn summary(&self, _: &Value) -> String {
        "read the to-do list".to_owned()
    }

    fn run(&self, ctx: ToolContext, _: Value) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        Box::pin(async move {
            let list = store(&ctx)?.todos().await;
            list.map(|list| output(&list)).map_err(|problem| ToolError::Todos { problem })
        })
    }
}

fn store(ctx: &ToolContext) -> Result<&dyn TodoStore, ToolError> {
    let missing = || ToolError::Todos { problem: "there is no session to keep one for".to_owned() };
    ctx.todos().ok_or_else(missing)
}

fn draft(index: usize, entry: Entry) -> Result<TodoDraft, ToolError> {
    let Entry { id, content, status, priority } = entry;
    let pointer = format!("/todos/{index}/content");
    if let Some(mistake) = too_long(pointer, &content, TODO_BYTES_MAX) {
        let mistakes = vec![mistake];
        return Err(ToolError::InvalidInput { tool: WRITE.to_owned(), mistakes });
    }
    // What is no id names no entry.
    let id = id.and_then(|id| id.parse().ok());
    Ok(TodoDraft { id, content, status, priority })
}

fn output(todos: &[Todo]) -> ToolOutput {
    let mut lines = vec![match todos.len() {
        0 => "(the to-do list is empty)".to_owned(),
        1 => "1 entry:".to_owned(),
        more => format!("{more} entries:"),
    }];
    lines.extend(todos.iter().map(line));
    ToolOutput::new(&lines.join("\n"), json!({ "count": todos.len() }))
}

/// An entry on one line, whatever its content holds.
fn line(todo: &Todo) -> String {
    let status = match todo.status {
        TodoStatus::Pending => "pending",
        TodoStatus::InProgress => "inProgress",
        TodoStatus::Completed => "completed",
        TodoStatus::Cancelled => "cancelled",
    };
    let priority = match todo.priority {
        TodoPriority::High => "high",
        TodoPriority::Medium => "medium",
        TodoPriority::Low => "low",
    };
    let content = todo.content.lines().collect::<Vec<_>>().join(" ");
    format!("{} [{status}, {priority}] {content}", todo.id)
}
