use iris_protocol::PermissionAction::{self, Allow, Ask, Deny};
use iris_protocol::PermissionLayer::{self, Agent, Project, Remembered, Server, Session};
use iris_protocol::{PermissionRule, SessionMode};
use proptest::prelude::*;

use super::*;

fn rule(layer: PermissionLayer, permission: &str, pattern: &str, action: PermissionAction) -> Rule {
    let (permission, pattern) = (permission.to_owned(), pattern.to_owned());
    Rule::new(PermissionRule {
        id: None,
        layer,
        session_id: None,
        permission,
        pattern,
        action,
        created_by: None,
        created_at: None,
        updated_at: None,
    })
    .unwrap()
}

fn judge(mode: SessionMode, rules: Vec<Rule>) -> Judge {
    Judge::new(mode, vec![Arc::new(Rules::new(rules))])
}

fn edit(path: &str) -> Access {
    Access::edit("write", Target::Path(path.to_owned()))
}

fn read(path: &str) -> Access {
    Access::read("grep", Target::Path(path.to_owned()))
}

fn bash(line: &str) -> Access {
    Access::of("bash", Target::Text(line.to_owned()))
}

fn verdict(judge: &Judge, access: &Access) -> PermissionAction {
    judge.judge_one(access).action
}

#[test]
fn without_rules_reading_is_allowed_and_everything_else_asks() {
    let judge = judge(SessionMode::Default, vec![]);
    assert_eq!(verdict(&judge, &read("src/main.rs")), Allow);
    assert_eq!(verdict(&judge, &read(".")), Allow);
    for secret in [".env", "deploy/prod.env", ".env.local", "keys/server.pem"] {
        assert_eq!(verdict(&judge, &read(secret)), Ask, "{secret}");
    }
    assert_eq!(verdict(&judge, &edit("src/main.rs")), Ask);
    assert_eq!(verdict(&judge, &bash("ls")), Ask);
    for protected in [".git/config", "sub/.git/hooks/x", ".iris/agents/a.md"] {
        assert_eq!(verdict(&judge, &edit(protected)), Deny, "{protected}");
    }
    let outside = Access::read("read", Target::Outside("../x".to_owned()));
    assert_eq!(verdict(&judge, &outside), Deny);
}

#[test]
fn a_deny_in_any_layer_is_final() {
    for layer in [Server, Project, Agent, Session, Remembered] {
        for other in [Server, Project, Agent, Session, Remembered] {
            let rules = vec![rule(other, "edit", "*", Allow), rule(layer, "edit", "secret", Deny)];
            let judge = judge(SessionMode::AcceptEdits, rules);
            assert_eq!(verdict(&judge, &edit("secret/x")), Deny, "{layer:?} under {other:?}");
            assert_eq!(verdict(&judge, &edit("open/x")), Allow);
        }
    }
}

#[test]
fn the_most_specific_layer_decides_and_inside_it_the_last_match() {
    let rules = vec![
        rule(Session, "bash", "git *", Ask),
        rule(Session, "bash", "git log*", Allow),
        rule(Server, "bash", "git push*", Allow),
        rule(Project, "bash", "cargo *", Allow),
        rule(Project, "bash", "cargo publish*", Ask),
    ];
    let judge = judge(SessionMode::Default, rules);
    assert_eq!(verdict(&judge, &bash("git log --oneline")), Allow);
    assert_eq!(verdict(&judge, &bash("git push")), Ask, "the session is more specific");
    assert_eq!(verdict(&judge, &bash("cargo test")), Allow);
    let publish = judge.judge_one(&bash("cargo publish"));
    assert_eq!(publish.action, Ask);
    assert_eq!(publish.rule.unwrap().pattern, "cargo publish*");
    assert_eq!(publish.reason, "a rule of the project asks about `bash` of `cargo publish*`");
    let unnamed = judge.judge_one(&bash("make"));
    assert_eq!((unnamed.action, unnamed.rule), (Ask, None));
}

#[test]
fn a_rule_names_a_tool_its_group_or_everything() {
    let of =
        |permission: &str| judge(SessionMode::Default, vec![rule(Project, permission, "*", Allow)]);
    assert_eq!(verdict(&of("write"), &edit("a")), Allow);
    assert_eq!(verdict(&of("edit"), &edit("a")), Allow);
    assert_eq!(verdict(&of("*"), &edit("a")), Allow);
    assert_eq!(verdict(&of("applyPatch"), &edit("a")), Ask);
    let tool = Access {
        permission: "files__delete".into(),
        group: Some("mcp:files".into()),
        target: Target::Text("files__delete".to_owned()),
    };
    assert_eq!(verdict(&of("mcp:files"), &tool), Allow);
    assert_eq!(verdict(&of("mcp:other"), &tool), Ask);
}

#[test]
fn modes_change_what_no_rule_of_a_person_names() {
    let asks = || vec![rule(Project, "edit", "deploy", Ask)];
    let accept = judge(SessionMode::AcceptEdits, asks());
    assert_eq!(verdict(&accept, &edit("src/a.rs")), Allow);
    assert_eq!(verdict(&accept, &edit("deploy/a")), Ask);
    assert_eq!(verdict(&accept, &edit("prod.env")), Ask);
    assert_eq!(verdict(&accept, &bash("ls")), Ask);
    let auto = judge(SessionMode::Auto, asks());
    assert_eq!(verdict(&auto, &bash("make")), Allow);
    assert_eq!(verdict(&auto, &edit("deploy/a")), Ask);
    assert_eq!(verdict(&auto, &edit(".git/config")), Deny);
    let plan = judge(SessionMode::Plan, vec![rule(Project, "*", "*", Allow)]);
    assert_eq!(verdict(&plan, &read("a")), Allow);
    assert_eq!(verdict(&plan, &Access::of("todoWrite", Target::Text(String::new()))), Allow);
    for changing in [edit("a"), bash("ls"), Access::of("webfetch", Target::Text("x".to_owned()))] {
        assert_eq!(verdict(&plan, &changing), Deny, "{changing:?}");
    }
}

#[test]
fn the_worst_of_all_accesses_counts_and_none_at_all_asks() {
    let judge = judge(SessionMode::Default, vec![rule(Project, "bash", "git *", Allow)]);
    let both = judge.judge(&[bash("git status"), bash("rm -rf x")]);
    assert_eq!(both.action, Ask);
    assert_eq!(both.accesses.iter().map(|it| it.action).collect::<Vec<_>>(), [Allow, Ask]);
    assert_eq!(judge.judge(&[]).action, Ask);
    let denied = judge.judge(&[bash("git status"), edit(".git/hooks/x")]);
    assert_eq!(
        denied.denial().unwrap(),
        "`write` of `.git/hooks/x` is not allowed: a built-in rule denies `edit` of `.git`"
    );
}

#[test]
fn what_is_not_literal_is_never_allowed_by_a_rule() {
    let opaque = Access::of("bash", Target::Opaque("$X push".to_owned()));
    let allowing = judge(SessionMode::Auto, vec![rule(Project, "bash", "*", Allow)]);
    assert_eq!(verdict(&allowing, &opaque), Ask);
    let denying = judge(SessionMode::Auto, vec![rule(Project, "bash", "* push", Deny)]);
    assert_eq!(verdict(&denying, &opaque), Deny);
}

#[test]
fn what_cannot_be_compared_in_time_is_denied() {
    let judge = judge(SessionMode::Default, vec![rule(Session, "edit", "src/**", Allow)]);
    let late = judge.judge_until(&edit("src/a"), Instant::now());
    assert_eq!((late.action, late.rule), (Deny, None));
    assert_eq!(late.reason, "its rules take too long to compare: make them simpler");
    assert_eq!(verdict(&judge, &edit("src/a")), Allow);
}

#[test]
fn a_child_may_do_no_more_than_its_parent() {
    let parent = judge(SessionMode::Plan, vec![]);
    let child =
        judge(SessionMode::Auto, vec![rule(Agent, "*", "*", Allow)]).within(Arc::new(parent));
    let grandchild = judge(SessionMode::Auto, vec![]).within(Arc::new(child.clone()));
    for judge in [child, grandchild] {
        let judged = judge.judge_one(&edit("a"));
        assert_eq!(judged.action, Deny);
        assert!(
            judged.reason.starts_with("the session that began this one: "),
            "{}",
            judged.reason
        );
        assert_eq!(verdict(&judge, &read("a")), Allow);
    }
}

/// The verdict by the words of the design, without a thought for speed.
fn plainly(rules: &[Rule], access: &Access) -> PermissionAction {
    let builtin: Vec<Rule> = builtin::rules().iter().cloned().collect();
    let subject = pattern::Subject::of(&access.target);
    let matching: Vec<&PermissionRule> = builtin
        .iter()
        .chain(rules)
        .filter(|rule| rule.may_match(access, &subject) && rule.glob.matches(&subject))
        .map(Rule::as_wire)
        .collect();
    if matching.iter().any(|rule| rule.action == Deny) {
        return Deny;
    }
    let layer = matching.iter().map(|rule| rule.layer).max();
    let last = matching.iter().rfind(|rule| Some(rule.layer) == layer);
    last.map_or(Ask, |rule| rule.action)
}

proptest! {
    #[test]
    fn the_verdict_is_that_of_the_words(
        rules in prop::collection::vec(
            (0_usize..5, 0_usize..4, 0_usize..5, 0_usize..3),
            0..12,
        ),
        path in 0_usize..4,
    ) {
        let layers = [Server, Project, Agent, Session, Remembered];
        let permissions = ["edit", "write", "read", "*"];
        let patterns = ["*", "src", "src/*.rs", "*.rs", "other"];
        let actions = [Allow, Ask, Deny];
        let rules: Vec<Rule> = rules
            .iter()
            .map(|(l, p, g, a)| rule(layers[*l], permissions[*p], patterns[*g], actions[*a]))
            .collect();
        let access = edit(["src/a.rs", "src/b/c.rs", "other/x", "README"][path]);
        let judge = judge(SessionMode::Default, rules.clone());
        prop_assert_eq!(verdict(&judge, &access), plainly(&rules, &access));
    }

    #[test]
    fn an_exact_pattern_matches_what_it_was_made_of_and_nothing_like_it(
        text in r"[a-c*?\[\]{},!^\\ ./-]{1,40}",
        other in r"[a-c*?\[\]{},!^\\ ./-]{1,40}",
    ) {
        let target = Target::Text(text.clone());
        let pattern = target.exact_pattern().unwrap();
        let glob = Glob::new(&pattern).unwrap();
        prop_assert!(glob.matches(&pattern::Subject::of(&target)), "{} as {}", text, pattern);
        let matches_other = glob.matches(&pattern::Subject::of(&Target::Text(other.clone())));
        prop_assert_eq!(matches_other, other == text);
    }

    #[test]
    fn no_pattern_makes_it_panic_or_hang(
        pattern in r"[a*?\[\]{},!^\\/ -]{1,200}",
        text in "[a/ ]{0,400}",
    ) {
        let Ok(glob) = Glob::new(&pattern) else { return Ok(()) };
        for target in [Target::Path(text.clone()), Target::Text(text.clone())] {
            glob.matches(&pattern::Subject::of(&target));
        }
    }
}

#[test]
fn an_exact_pattern_of_a_path_is_that_path_and_what_is_in_it() {
    let pattern = Target::Path("src".to_owned()).exact_pattern().unwrap();
    assert_eq!(pattern, "/src");
    let judge = judge(SessionMode::Default, vec![rule(Remembered, "edit", &pattern, Allow)]);
    assert_eq!(verdict(&judge, &edit("src/a.rs")), Allow);
    assert_eq!(verdict(&judge, &edit("other/src")), Ask);
    for none in
        [Target::Opaque("a".into()), Target::Outside("a".into()), Target::Text("a\nb".into())]
    {
        assert_eq!(none.exact_pattern(), None);
    }
}
