//! Names, schemas, and what is said about arguments that break them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;

use futures_util::future::BoxFuture;
use iris_agent::permissions::{Access, Target};
use iris_egress::{Config, Egress};
use iris_protocol::ErrorCode;
use iris_sandbox::Sandbox;
use iris_tools::{
    INPUT_BYTES_MAX, INPUT_DEPTH_MAX, MISTAKES_MAX, Tool, ToolContext, ToolError, ToolOutput,
    ToolRegistry, webfetch,
};
use serde_json::{Value, json};

fn registry() -> ToolRegistry {
    ToolRegistry::builtin().unwrap()
}

fn refusal(tool: &str, input: &Value) -> String {
    registry().validate(tool, input).unwrap_err().to_string()
}

fn properties(registry: &ToolRegistry, tool: &str) -> Vec<String> {
    let parameters = registry.get(tool).unwrap().parameters().clone();
    let properties = parameters.pointer("/properties").and_then(Value::as_object).unwrap();
    properties.keys().cloned().collect()
}

#[test]
fn webfetch_comes_last_and_touches_a_host_although_it_writes_nothing() {
    let egress = Arc::new(Egress::new(Config::default()).unwrap());
    let registry = registry().with(webfetch(Arc::clone(&egress))).unwrap();
    let tool = registry.get("webfetch").unwrap();
    assert_eq!(registry.names().last(), Some("webfetch"));
    assert!(!tool.writes());
    let touches = |url: &str, target: Target| {
        assert_eq!(tool.accesses(&json!({ "url": url })), [Access::of("webfetch", target)]);
    };
    touches("https://A.example:8443/x?y", Target::Text("a.example".to_owned()));
    touches("http://0x7f.1/", Target::Text("127.0.0.1".to_owned()));
    touches("http://example.com./", Target::Text("example.com".to_owned()));
    touches("file:///etc/passwd", Target::Opaque("file:///etc/passwd".to_owned()));
    let summary = |input: Value| tool.summary(&input);
    assert_eq!(
        summary(json!({"url": "http://bücher.example/`a"})),
        "fetch `http://xn--bcher-kva.example/%60a`"
    );
    assert_eq!(summary(json!({"url": "http://0x7f.1"})), "fetch `http://127.0.0.1/`");
    let bad = "call `webfetch` with a url that cannot be used";
    assert_eq!(summary(json!({"url": "file:///etc/passwd"})), bad);
    assert_eq!(summary(json!({})), bad);
    for input in [
        json!({}),
        json!({"url": 1}),
        json!({"url": "a", "format": "pdf"}),
        json!({"url": "a", "x": 1}),
    ] {
        assert_eq!(
            registry.validate("webfetch", &input).unwrap_err().code(),
            ErrorCode::InvalidRequest
        );
    }
    assert!(registry.validate("webfetch", &json!({"url": "http://a", "format": "text"})).is_ok());
    let twice = registry.with(webfetch(egress)).err().unwrap();
    assert!(matches!(twice, ToolError::InvalidTool { name, .. } if name == "webfetch"));
}

#[tokio::test]
async fn the_built_in_tools_have_the_documented_parameters_in_the_documented_order() {
    // Nothing is run here: no launcher is needed.
    let broken = iris_sandbox::Config { launcher: Some("/bin/false".into()), ..Default::default() };
    let egress = Arc::new(Egress::new(Config::default()).unwrap());
    let registry = registry().with_bash(Sandbox::start(broken).await).unwrap();
    let registry = registry.with(webfetch(egress)).unwrap();
    let names: Vec<_> = registry.names().collect();
    let files = ["read", "write", "edit", "multiEdit", "applyPatch", "list", "glob", "grep"];
    assert_eq!(names[..8], files);
    assert_eq!(names[8..], ["todoWrite", "todoRead", "question", "task", "bash", "webfetch"]);
    let properties = |tool| properties(&registry, tool);
    let required = |tool| registry.get(tool).unwrap().parameters()["required"].clone();
    let task = ["description", "prompt", "agent", "background", "resume", "model"];
    assert_eq!(properties("task"), task);
    assert_eq!(properties("todoWrite"), ["todos"]);
    assert_eq!(properties("todoRead"), [""; 0]);
    assert_eq!(properties("question"), ["questions"]);
    assert_eq!(properties("read"), ["path", "offset", "limit"]);
    assert_eq!(properties("write"), ["path", "content"]);
    assert_eq!(properties("edit"), ["path", "oldString", "newString", "replaceAll"]);
    assert_eq!(properties("multiEdit"), ["path", "edits"]);
    assert_eq!(properties("applyPatch"), ["patch"]);
    assert_eq!(properties("list"), ["path", "depth"]);
    assert_eq!(properties("glob"), ["pattern", "path"]);
    assert_eq!(properties("grep"), ["pattern", "path", "include", "context", "ignoreCase"]);
    assert_eq!(properties("bash"), ["command", "timeoutMs", "workdir", "description"]);
    assert_eq!(required("bash"), json!(["command"]));
    assert_eq!(properties("webfetch"), ["url", "format"]);
    assert_eq!(required("webfetch"), json!(["url"]));
}

#[test]
fn specs_come_in_the_order_asked_and_the_wire_has_all() {
    let registry = registry();
    let specs = registry.specs(&["grep".into(), "none".into(), "read".into()]);
    let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["grep", "read"]);
    assert_eq!(specs[1].parameters, registry.get("read").unwrap().parameters().into());
    let writing: Vec<_> = registry.to_wire().into_iter().filter(|tool| tool.writes).collect();
    let names: Vec<_> = writing.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["write", "edit", "multiEdit", "applyPatch", "todoWrite"]);
}

#[test]
fn an_unknown_tool_is_answered_with_the_names_that_exist() {
    let error = registry().validate("raed", &json!({})).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
    let expected = "unknown tool `raed`; the tools are `read`, `write`, `edit`, `multiEdit`, \
                    `applyPatch`, `list`, `glob`, `grep`, `todoWrite`, `todoRead`, `question`, `task`";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn each_mistake_is_pointed_at() {
    assert_eq!(
        refusal("read", &json!({})),
        "invalid arguments for `read`: `/path` is required and missing"
    );
    let text = refusal("read", &json!({"path": 1, "offset": 0, "a/b": true}));
    assert!(text.contains("`/path` is wrong: the value is not of type \"string\""), "{text}");
    assert!(text.contains("`/offset` is wrong: the value is less than the minimum of 1"), "{text}");
    assert!(text.contains("`/a~1b` is not a parameter"), "{text}");
    let text = refusal("read", &json!("{\"path\": "));
    assert_eq!(text, "invalid arguments for `read`: is wrong: the value is not of type \"object\"");
}

#[test]
fn every_tool_refuses_wrong_types_missing_and_unknown_parameters() {
    let cases = [
        ("read", json!({"path": "a", "limit": "10"}), "`/limit`"),
        ("write", json!({"path": "a"}), "`/content`"),
        ("edit", json!({"path": "a", "oldString": "", "newString": "b"}), "`/oldString`"),
        ("edit", json!({"path": "a", "old_string": "x", "newString": "b"}), "`/old_string`"),
        ("multiEdit", json!({"path": "a", "edits": [{"oldString": "a"}]}), "`/edits/0/newString`"),
        ("applyPatch", json!({"patch": ""}), "`/patch`"),
        ("applyPatch", json!({"patch": "x", "path": "a"}), "`/path`"),
        ("list", json!({"depth": 11}), "`/depth`"),
        ("glob", json!({"path": "a"}), "`/pattern`"),
        ("grep", json!({"pattern": "a", "context": 21}), "`/context`"),
        ("grep", json!({"pattern": "a", "ignoreCase": "yes"}), "`/ignoreCase`"),
        ("todoWrite", json!({"todos": [{"content": "a", "status": "done"}]}), "`/todos/0/status`"),
        ("todoRead", json!({"id": "a"}), "`/id`"),
        ("question", json!({"questions": []}), "`/questions`"),
        ("question", json!({"questions": [{"text": ""}]}), "`/questions/0/text`"),
        (
            "question",
            json!({"questions": [{"text": "a", "options": ["b"]}]}),
            "`/questions/0/options/0`",
        ),
    ];
    for (tool, input, pointer) in cases {
        let text = refusal(tool, &input);
        assert!(text.contains(pointer), "{text}");
    }
}

#[test]
fn an_error_names_a_bounded_number_of_mistakes_and_repeats_no_long_value() {
    let mut input = json!({"path": ["x".repeat(10_000)]});
    for number in 0..100 {
        input[format!("{}{number}", "n".repeat(200))] = json!(1);
    }
    let error = registry().validate("read", &input).unwrap_err();
    assert!(error.to_string().len() < 1000);
    let ToolError::InvalidInput { mistakes, .. } = error else { unreachable!("{error}") };
    assert_eq!(mistakes.len(), MISTAKES_MAX);
}

#[test]
fn arguments_that_are_too_large_or_too_deep_are_refused() {
    let with_content = |bytes: usize| {
        let empty = json!({"path": "a", "content": ""}).to_string().len();
        json!({"path": "a", "content": "x".repeat(bytes - empty)})
    };
    assert!(registry().validate("write", &with_content(INPUT_BYTES_MAX)).is_ok());
    let error = registry().validate("write", &with_content(INPUT_BYTES_MAX + 1)).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);

    let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!({"path": inner}));
    let error = registry().validate("read", &nested(INPUT_DEPTH_MAX)).unwrap_err();
    assert!(matches!(error, ToolError::InvalidInput { .. }), "{error}");
    let error = registry().validate("read", &nested(INPUT_DEPTH_MAX + 1)).unwrap_err();
    assert!(matches!(error, ToolError::InputTooLarge { .. }), "{error}");
}

#[test]
fn two_tools_cannot_have_one_name() {
    let read = registry().get("read").unwrap();
    let error = ToolRegistry::new(vec![Arc::clone(&read), read]).err().unwrap();
    assert!(matches!(error, ToolError::InvalidTool { .. }));
}

#[test]
fn a_tool_that_cannot_be_added_keeps_none_of_the_others_away() {
    let base = registry();
    let tool = |name: &'static str, parameters: Value| -> Arc<dyn Tool> {
        Arc::new(Named { name, parameters })
    };
    let object = json!({ "type": "object" });
    let remote =
        json!({ "type": "object", "properties": { "a": { "$ref": "http://127.0.0.1:1/" } } });
    let (extended, refused) = base.extended(vec![
        tool("read", object.clone()),
        tool("broken", json!({ "type": "nothing" })),
        tool("remote", remote),
        tool("own", object.clone()),
        tool("own", object.clone()),
        tool("last", object),
    ]);
    assert_eq!(extended.names().count(), base.names().count() + 2);
    assert!(extended.names().collect::<Vec<_>>().ends_with(&["own", "last"]));
    assert_eq!(
        extended.get("read").unwrap().description(),
        base.get("read").unwrap().description()
    );
    let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
    for (error, name) in refused.iter().zip(["read", "broken", "remote", "own"]) {
        assert!(error.starts_with(&format!("tool `{name}` cannot be registered")), "{error}");
    }
    assert_eq!(refused.len(), 4);
    extended.validate("own", &json!({ "anything": 1 })).unwrap();
    assert!(base.get("own").is_none());
}

/// A tool that does nothing.
struct Named {
    name: &'static str,
    parameters: Value,
}

impl Tool for Named {
    fn name(&self) -> &str {
        self.name
    }

    fn description(&self) -> &'static str {
        "Does nothing."
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn writes(&self) -> bool {
        false
    }

    fn accesses(&self, _: &Value) -> Vec<Access> {
        Vec::new()
    }

    fn summary(&self, _: &Value) -> String {
        "do nothing".to_owned()
    }

    fn run(&self, _: ToolContext, _: Value) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        Box::pin(async { Ok(ToolOutput::new("", Value::Null)) })
    }
}

#[test]
fn summaries_say_what_a_call_would_do() {
    let summary = |tool: &str, input: Value| registry().get(tool).unwrap().summary(&input);
    let write = json!({"path": "notes.md", "content": "a\nb\n"});
    assert_eq!(summary("write", write), "write 2 lines to `notes.md`");
    let edit = json!({"path": "a", "oldString": "x", "newString": "y\nz", "replaceAll": true});
    assert_eq!(summary("edit", edit), "replace 1 line by 2 lines in `a` wherever they occur");
    let edits = json!({"path": "a", "edits": [{"oldString": "x", "newString": "y"}]});
    assert_eq!(summary("multiEdit", edits), "make 1 edit in `a`");
    assert_eq!(summary("read", json!({"path": "a"})), "read `a`");
    assert_eq!(summary("list", json!({})), "list `.`");
    assert_eq!(summary("glob", json!({"pattern": "*.rs"})), "find files that match `*.rs`");
    assert_eq!(summary("grep", json!({"pattern": "\\w+"})), "search files for `\\w+`");
    assert_eq!(summary("write", json!({})), "call `write` with invalid arguments");
    let long = json!({"path": "x".repeat(300)});
    assert_eq!(summary("read", long), format!("read `{}…`", "x".repeat(200)));
    let disguised = json!({"path": "a\u{202e}\n`", "content": ""});
    assert_eq!(summary("write", disguised), "write 0 lines to `a\\u{202e}\\n\\u{60}`");
}
