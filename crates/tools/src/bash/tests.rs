//! What is read off command lines, and what opens the network.

use std::sync::Arc;

use iris_agent::permissions::{Rule, Rules};
use iris_protocol::{PermissionRule, SessionMode};
use iris_sandbox::Config;

use super::*;

async fn tool() -> Bash {
    // Nothing is run here: no launcher is needed.
    let config = Config { launcher: Some("/bin/false".into()), ..Config::default() };
    Bash::new(Sandbox::start(config).await)
}

#[tokio::test]
async fn each_command_and_each_file_of_a_line_is_named() {
    let tool = tool().await;
    let accesses = |input: Value| tool.accesses(&input);
    let command = |text: &str| Access::of("bash", Target::Text(text.to_owned()));
    let path = |path: &str| Target::Path(path.to_owned());
    assert_eq!(
        accesses(json!({ "command": "git status && rm -rf x > out < in", "workdir": "sub" })),
        [
            command("git status"),
            command("rm -rf x"),
            Access::of("edit", path("sub/out")),
            Access::of("read", path("sub/in")),
            command("cd sub"),
        ]
    );
    let outside = |it: &str| Access::of("edit", Target::Outside(it.to_owned()));
    assert!(accesses(json!({ "command": "echo a > /etc/x" })).contains(&outside("/etc/x")));
    let opaque = accesses(json!({ "command": "$X push" }));
    assert!(opaque.iter().any(|it| matches!(it.target, Target::Opaque(_))), "{opaque:?}");
    let here = accesses(json!({ "command": "ls", "workdir": "./" }));
    assert_eq!(here, [command("ls")]);
    let elsewhere = accesses(json!({ "command": "ls", "workdir": "../x" }));
    assert!(elsewhere.iter().any(|it| matches!(it.target, Target::Outside(_))));
}

fn allows(layer: PermissionLayer, permission: &str, pattern: &str) -> Rule {
    let rule = PermissionRule {
        id: None,
        layer,
        session_id: None,
        permission: permission.to_owned(),
        pattern: pattern.to_owned(),
        action: PermissionAction::Allow,
        created_by: None,
        created_at: None,
        updated_at: None,
    };
    Rule::new(rule).unwrap()
}

#[tokio::test]
async fn what_is_remembered_of_a_compound_line_matches_each_command_and_nothing_else() {
    let tool = tool().await;
    let accesses = |line: &str| tool.accesses(&json!({ "command": line }));
    let line = "bash -c \"echo '[a]*'\" && FOO=1 git status 'x?{y,z}\\!'";
    let patterns = |line: &str| -> Vec<Option<String>> {
        accesses(line).iter().map(|access| access.target.exact_pattern()).collect()
    };
    let named = |pattern: &str| Some(pattern.to_owned());
    assert_eq!(
        patterns(line),
        [named(r"echo '\[a\]\*'"), None, named(r"git status 'x\?\{y\,z\}\\\!'")]
    );
    let patterns = patterns(line).into_iter().flatten();
    let rules = patterns.map(|it| allows(PermissionLayer::Remembered, NAME, &it)).collect();
    let judge = Judge::new(SessionMode::Default, vec![Arc::new(Rules::new(rules))]);
    let verdict = |line: &str| judge.judge(&accesses(line)).action;
    assert_eq!(verdict("echo '[a]*'"), PermissionAction::Allow);
    let both = "git status 'x?{y,z}\\!'; echo '[a]*'";
    assert_eq!(verdict(both), PermissionAction::Allow);
    for other in ["echo '[a]x'", "echo ab", "git status 'xa{y,z}\\!'", "bash -c 'rm x'", "bash x"] {
        assert_eq!(verdict(other), PermissionAction::Ask, "{other}");
    }
}

#[tokio::test]
async fn a_line_of_more_commands_than_a_person_reads_is_refused() {
    let tool = tool().await;
    let line = |count: usize| json!({ "command": vec!["true"; count].join(";") });
    tool.check(&line(TOUCHED_MAX)).unwrap();
    let refused = tool.check(&line(TOUCHED_MAX + 1)).unwrap_err();
    assert!(refused.to_string().contains("`/command` has 65 commands and files"), "{refused}");
}

#[test]
fn only_rules_of_administrators_open_the_network() {
    let opened = |layer, permission: &str, pattern: &str| {
        let rules = Rules::new(vec![allows(layer, permission, pattern)]);
        network(&Judge::new(SessionMode::Auto, vec![Arc::new(rules)]))
    };
    for layer in [PermissionLayer::Server, PermissionLayer::Project, PermissionLayer::Agent] {
        assert_eq!(opened(layer, "network", "on"), Network::On);
        assert_eq!(opened(layer, "network", "loopback"), Network::Loopback);
        assert_eq!(opened(layer, "bash", "*"), Network::Off);
    }
    for layer in [PermissionLayer::Session, PermissionLayer::Remembered] {
        assert_eq!(opened(layer, "network", "*"), Network::Off);
    }
    assert_eq!(network(&Judge::new(SessionMode::Auto, vec![])), Network::Off);
}

#[tokio::test]
async fn a_person_is_shown_the_whole_line_and_where_it_runs() {
    let tool = tool().await;
    let input = json!({ "command": "ls\n-l", "workdir": "src", "description": "look" });
    assert_eq!(tool.summary(&input), r"run `ls\n-l` in `src`: `look`");
    assert!(tool.unavailable().is_some());
}
