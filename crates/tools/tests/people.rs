//! The tools that talk to people and keep lists for them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, ready};
use iris_agent::permissions::{Access, Judge, Target};
use iris_protocol::{
    ErrorCode, QuestionItem, QuestionOption, SessionMode, Todo, TodoId, TodoPriority, TodoStatus,
};
use iris_tools::{
    ReadLog, TodoDraft, TodoStore, Tool, ToolContext, ToolError, ToolOutput, ToolRegistry,
};
use iris_workspace::Workspace;
use serde_json::{Value, json};

fn tool(name: &str) -> Arc<dyn Tool> {
    ToolRegistry::builtin().unwrap().get(name).unwrap()
}

fn todo(id: u128, content: &str) -> Todo {
    Todo {
        id: TodoId::from_bits(id),
        content: content.to_owned(),
        status: TodoStatus::Pending,
        priority: TodoPriority::Medium,
    }
}

/// A list that remembers what it was replaced with, or that is out of reach.
#[derive(Debug, Default)]
struct List {
    replaced: Mutex<Vec<TodoDraft>>,
    is_broken: bool,
}

impl List {
    fn answer(&self) -> BoxFuture<'static, Result<Vec<Todo>, String>> {
        let broken = Err("the disk is gone".to_owned());
        let answer = if self.is_broken { broken } else { Ok(vec![todo(1, "one\r\nline")]) };
        Box::pin(ready(answer))
    }
}

impl TodoStore for List {
    fn todos(&self) -> BoxFuture<'static, Result<Vec<Todo>, String>> {
        self.answer()
    }

    fn replace(&self, todos: Vec<TodoDraft>) -> BoxFuture<'static, Result<Vec<Todo>, String>> {
        *self.replaced.lock().unwrap() = todos;
        self.answer()
    }
}

async fn call(name: &str, input: Value, list: Option<Arc<List>>) -> Result<ToolOutput, ToolError> {
    let temp = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(temp.path()).unwrap();
    let judge = Arc::new(Judge::new(SessionMode::Default, vec![]));
    let mut ctx = ToolContext::new(workspace, Arc::new(ReadLog::new()), judge);
    if let Some(list) = list {
        ctx = ctx.with_todos(list);
    }
    tool(name).run(ctx, input).await
}

#[tokio::test]
async fn a_list_is_handed_over_and_answered_one_line_an_entry() {
    let list = Arc::new(List::default());
    let id = TodoId::from_bits(1);
    let input = json!({"todos": [
        {"id": id, "content": "a", "status": "completed", "priority": "high"},
        {"id": "2", "content": "b", "status": "inProgress", "priority": "low"},
    ]});
    let output = call("todoWrite", input, Some(Arc::clone(&list))).await.unwrap();
    assert_eq!(output.output, format!("1 entry:\n{id} [pending, medium] one line"));
    assert_eq!(output.metadata, json!({"count": 1}));
    let draft = |id: Option<TodoId>, content: &str, status, priority| TodoDraft {
        id,
        content: content.to_owned(),
        status,
        priority,
    };
    let expected = [
        draft(Some(id), "a", TodoStatus::Completed, TodoPriority::High),
        draft(None, "b", TodoStatus::InProgress, TodoPriority::Low),
    ];
    assert_eq!(*list.replaced.lock().unwrap(), expected);
    let read = call("todoRead", json!({}), Some(list)).await.unwrap();
    assert_eq!(read.output, output.output);
}

#[tokio::test]
async fn without_its_list_a_tool_says_what_is_wrong() {
    let entry = json!({"content": "a", "status": "pending", "priority": "low"});
    for (name, input) in [("todoWrite", json!({"todos": [entry]})), ("todoRead", json!({}))] {
        let broken = Arc::new(List { is_broken: true, ..List::default() });
        let error = call(name, input.clone(), Some(broken)).await.unwrap_err();
        assert_eq!(error.to_string(), "the to-do list is out of reach: the disk is gone");
        assert_eq!(error.code(), ErrorCode::Internal);
        let error = call(name, input, None).await.unwrap_err();
        let expected = "the to-do list is out of reach: there is no session to keep one for";
        assert_eq!(error.to_string(), expected);
    }
}

#[tokio::test]
async fn an_entry_has_a_limit_in_bytes() {
    let input = |content: &str| json!({"todos": [{"content": content, "status": "pending", "priority": "low"}]});
    let (fits, long) = ("ä".repeat(500), "ä".repeat(501));
    let registry = ToolRegistry::builtin().unwrap();
    assert!(registry.validate("todoWrite", &input(&long)).is_ok());
    call("todoWrite", input(&fits), Some(Arc::default())).await.unwrap();
    let error = call("todoWrite", input(&long), Some(Arc::default())).await.unwrap_err();
    let expected = "invalid arguments for `todoWrite`: `/todos/0/content` is wrong: it is longer \
                    than 1000 bytes";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_question_asks_and_never_runs() {
    let question = tool("question");
    let input = json!({"questions": [
        {"text": "which?", "options": [{"label": "a", "description": "first"}], "multiple": true},
        {"text": "why?"},
    ]});
    let option = QuestionOption { label: "a".to_owned(), description: Some("first".to_owned()) };
    let item = |text: &str, options: Vec<QuestionOption>, multiple| QuestionItem {
        text: text.to_owned(),
        options,
        multiple,
    };
    let expected = vec![item("which?", vec![option], true), item("why?", vec![], false)];
    assert_eq!(question.asks(&input).unwrap(), Some(expected));
    assert_eq!(question.summary(&input), "ask `which?`");
    let error = call("question", input, None).await.unwrap_err();
    assert_eq!(error.to_string(), "`question` waits for people and does not run");
    assert_eq!(tool("read").asks(&json!({"path": "a"})).unwrap(), None);
}

#[test]
fn a_question_names_each_text_that_is_too_long_up_to_a_number() {
    let wide = |count: usize| "ä".repeat(count);
    let ask = |question: Value| {
        let error = tool("question").asks(&json!({"questions": [question]}));
        error.map(drop).map_err(|error| error.to_string())
    };
    let option = |label: String, description: String| json!({"text": "a", "options": [{"label": label, "description": description}]});
    assert_eq!(ask(json!({"text": wide(500)})), Ok(()));
    assert_eq!(ask(option(wide(100), wide(500))), Ok(()));
    let problem = |pointer: &str, most: usize| {
        let what = format!("`{pointer}` is wrong: it is longer than {most} bytes");
        Err(format!("invalid arguments for `question`: {what}"))
    };
    let text = ask(json!({"text": wide(501)}));
    assert_eq!(text, problem("/questions/0/text", 1000));
    let label = ask(option(wide(101), "b".to_owned()));
    assert_eq!(label, problem("/questions/0/options/0/label", 200));
    let description = ask(option("b".to_owned(), wide(501)));
    assert_eq!(description, problem("/questions/0/options/0/description", 1000));
    let many: Vec<_> = (0..8).map(|_| json!({"text": wide(501)})).collect();
    let error = tool("question").asks(&json!({"questions": many})).unwrap_err();
    assert_eq!(error.to_string().matches("is longer").count(), iris_tools::MISTAKES_MAX);
}

#[test]
fn each_needs_the_permission_of_its_own_name() {
    for name in ["todoWrite", "todoRead", "question"] {
        let tool = tool(name);
        let [access] = &tool.accesses(&json!({}))[..] else { panic!("one access") };
        assert_eq!(access.permission, name);
        assert_eq!((&access.group, &access.target), (&None, &Target::Text(String::new())));
        let judge = Judge::new(SessionMode::Plan, vec![]);
        let allowed = judge.judge(&[Access::clone(access)]);
        assert_eq!(allowed.denial(), None, "{name}");
    }
    let summary = tool("todoWrite").summary(&json!({"todos": [1, 2]}));
    assert_eq!(summary, "write a to-do list with 2 entries");
    assert_eq!(tool("todoRead").summary(&json!({})), "read the to-do list");
}
