//! Tools that run a command, in the real sandbox of this machine.

use iris_protocol::{ErrorCode, ToolState};
use serde_json::json;

use super::*;
use crate::bash::{app, sandbox};
use crate::{code_of, refusal, rest_refusal};

/// A request for a tool that runs `script` with a shell of its own.
fn script(script: &str) -> Value {
    json!({
        "name": "shout",
        "description": "Says it louder.",
        "parameters": { "type": "object", "properties": { "text": { "type": "string" } } },
        "command": { "argv": ["bash", "-c", script] },
    })
}

#[tokio::test]
async fn a_command_gets_the_arguments_on_its_input_and_runs_once_somebody_agrees() {
    let Some((_app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    ann.client.file_put(&talk.project, "sub/mark.txt", "here").await.unwrap();
    let mut body = script("cat; echo; cat mark.txt; tr a-z A-Z < mark.txt > loud.txt");
    body["command"]["workdir"] = json!("sub");
    define(&ann, &talk.project, body).await;
    let input = json!({ "text": "$(id); 'x' é" });
    let run = talk.send_message(&calls("shout", &input)).await.run_id;
    let asked = talk.approval().await;
    let touched: Vec<_> = asked.accesses.iter().map(|it| it.target.as_str()).collect();
    let line = "bash -c 'cat; echo; cat mark.txt; tr a-z A-Z < mark.txt > loud.txt'";
    assert_eq!(touched, [line, "cd sub"]);
    assert!(asked.message.contains("run `bash -c ") && asked.message.ends_with(" in `sub`"));
    talk.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let call = calls_of(&answer)[0];
    let expected = format!("{input}\nhere\n(exit code 0)");
    assert_eq!((call.state, call.output.as_deref()), (ToolState::Completed, Some(&*expected)));
    assert_eq!(call.metadata.as_ref().unwrap()["status"], "exited");
    assert_eq!(ann.client.file_get(&talk.project, "sub/loud.txt").await.unwrap(), "HERE");
}

#[tokio::test]
async fn a_command_sees_no_network_and_nothing_of_the_server_and_ends_at_its_timeout() {
    let Some((app, ann)) = app(sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    let root = app.data_dir().join("root.db");
    let address = app.url.trim_start_matches("http://").replace(':', "/");
    let (root, key) = (root.display(), app.data_dir().join("master.key"));
    let key = key.display();
    let probe = format!("cat {root} || cat {key} || exec 3<>/dev/tcp/{address} || env; exit 3");
    define(&ann, &talk.project, script(&probe)).await;
    allow(&ann, &talk.project, "shout").await;
    let call = outcome(&mut talk, &calls("shout", &json!({}))).await;
    let output = call.output.unwrap();
    assert!(output.ends_with("(exit code 3)") && !output.contains("SQLite"), "{output}");
    assert!(!output.contains("CARGO") && !output.contains("IRIS_"), "{output}");

    let mut slow = script("echo begun; sleep 60");
    slow["name"] = json!("slow");
    slow["command"]["timeoutMs"] = json!(300);
    define(&ann, &talk.project, slow).await;
    allow(&ann, &talk.project, "slow").await;
    let call = outcome(&mut talk, &calls("slow", &json!({}))).await;
    let output = call.output.unwrap();
    assert!(output.starts_with("begun") && output.contains("after 300 ms"), "{output}");
}

#[tokio::test]
async fn only_users_who_may_have_programs_run_define_change_test_and_call_commands() {
    let Some((app, admin)) = app(sandbox()).await else { return };
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    ann.add_member(&talk.project, &admin, iris_protocol::Role::Admin).await;
    let no_code = |answer: &RestAnswer| {
        assert_eq!(code_of(&rest_refusal(answer)), (ErrorCode::Forbidden, "no_code"));
    };
    no_code(&ann.post(&path(&talk.project), script("id")).await);
    let id = define(&admin, &talk.project, script("id")).await;
    let argv = json!({ "command": { "argv": ["ls"] } });
    no_code(&change(&ann, &talk.project, &id, argv).await);
    no_code(&change(&ann, &talk.project, &id, json!({ "description": "x" })).await);
    no_code(&test(&ann, &talk.project, &id, json!({})).await);
    let rule = json!({ "permission": "shout", "pattern": "*", "action": "allow" });
    let rules = format!("/v1/projects/{}/permissions", talk.project);
    no_code(&ann.post(&rules, rule.clone()).await);
    allow(&admin, &talk.project, "shout").await;
    // Her runs do not call it, whatever rules say; and she does not say yes for others.
    let call = outcome(&mut talk, &calls("shout", &json!({}))).await;
    assert_eq!(call.state, ToolState::Denied);
    let mut his = admin.conversation_in(&talk.project).await;
    assert_eq!(outcome(&mut his, &calls("shout", &json!({}))).await.state, ToolState::Completed);
    // To take it out of use needs no such right; to take it into use does; a rule for it meanwhile too.
    assert_eq!(change(&ann, &talk.project, &id, json!({ "enabled": false })).await.status, 200);
    no_code(&change(&ann, &talk.project, &id, json!({ "enabled": true })).await);
    no_code(&ann.post(&rules, rule).await);
    assert!(ann.rest("DELETE", &format!("{}/{id}", path(&talk.project)), None).await.is_success());
}

#[tokio::test]
async fn a_command_that_waits_is_approved_by_those_who_may_alone() {
    let Some((app, admin)) = app(sandbox()).await else { return };
    let bob = app.user("bob").await;
    let mut talk = admin.conversation().await;
    admin.add_member(&talk.project, &bob, iris_protocol::Role::Member).await;
    define(&admin, &talk.project, script("echo hi")).await;
    let run = talk.send_message(&calls("shout", &json!({}))).await.run_id;
    let asked = talk.approval().await;
    let his = bob.join(&talk.project, &talk.session).await;
    let refused = refusal(his.approve(&asked.tool_call_id).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "no_code"));
    talk.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
}

#[tokio::test]
async fn a_server_that_runs_no_commands_says_so() {
    let (app, _) = app_and_site().await;
    let admin = app.admin().await;
    let mut talk = admin.conversation().await;
    let id = define(&admin, &talk.project, script("id")).await;
    let tool = listed(&admin, &talk.project, "shout").await.unwrap();
    assert_eq!(tool["problem"], "this server runs no commands");
    let call = outcome(&mut talk, &calls("shout", &json!({}))).await;
    assert_eq!(call.error.as_deref(), Some("this server runs no commands"));
    let tested = test(&admin, &talk.project, &id, json!({})).await;
    let refused = rest_refusal(&tested);
    assert_eq!(code_of(&refused), (ErrorCode::SandboxUnavailable, "tool_unavailable"));
    for argv in [json!([]), json!([""]), json!(["a\nb"])] {
        let mut body = script("id");
        body["name"] = json!("other");
        body["command"]["argv"] = argv;
        let refused = rest_refusal(&admin.post(&path(&talk.project), body).await);
        assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "invalid_tool"));
    }
}
