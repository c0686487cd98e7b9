//! The commands about people at a running server, and what shells and manuals know of all commands.

use std::path::Path;
use std::process::Command;

use iris_protocol::{LoginList, ProjectList, UserGet, UserId, UserList, UserLogout};
use iris_testkit::{PASSWORD, Person, ServerProcess};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{iris as serve, root};

/// Runs a command to its end: exit code, standard output, standard error.
async fn iris(url: &str, credentials: &Path, args: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iris"));
    command.args(args.split_whitespace()).env_clear();
    command.env("IRIS_URL", url).env("IRIS_CREDENTIALS_FILE", credentials);
    if args.contains("--email root") {
        command.env("IRIS_PASSWORD", PASSWORD);
    }
    ServerProcess::ended(command).await
}

async fn user_of(admin: &Person, email: &str) -> UserId {
    let list = UserList { limit: None, cursor: None, email: Some(email.to_owned()) };
    admin.client.over_rest(&list).await.unwrap().users[0].id.clone()
}

#[tokio::test]
async fn a_login_is_used_by_the_commands_that_follow_until_it_ends() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(serve(&dir.path().join("data"))).await;
    let root = root(&server).await;
    let credentials = dir.path().join("own").join("credentials.json");
    let run = async |args: &str| iris(&server.url, &credentials, args).await;
    let good = async |args: &str| {
        let (code, text, errors) = run(args).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{args}: {text}");
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<Value>>()
    };

    let (code, _, errors) = run("user list").await;
    assert_eq!((code, errors.contains("run `iris login`")), (Some(2), true), "{errors}");
    // Without a terminal nobody can be asked for a password.
    let (code, _, errors) = run("login --email ann@example.com").await;
    assert_eq!((code, errors.contains("no terminal")), (Some(2), true), "{errors}");
    good("login --email root@example.com --json").await;

    let url = server.url.clone();
    let created =
        good(&format!("user create --email ann@example.com --username ann --url {url} --json"))
            .await;
    assert_eq!(created[0]["user"]["username"], "ann");
    let users = good("user list --json").await;
    let names: Vec<&str> = users.iter().map(|user| user["username"].as_str().unwrap()).collect();
    assert_eq!(names, ["root", "ann"]);
    let closed = good("user disable ann@example.com --json").await;
    assert_eq!(closed[0]["user"]["disabled"], true);
    good("user enable ann@example.com --json").await;
    let promoted = good("user promote ann@example.com --json").await;
    assert_eq!(promoted[0]["user"]["isAdmin"], true);
    good("user demote ann@example.com --json").await;
    good("user logout ann@example.com --json").await;
    let link = good("user reset-link ann@example.com --json").await;
    assert!(link[0]["token"].as_str().is_some_and(|token| !token.is_empty()), "{link:?}");
    let (code, _, errors) = run("user disable nobody@example.com").await;
    assert_eq!((code, errors.contains("see `iris user list`")), (Some(2), true), "{errors}");

    let args = "key create --name ci --scope projects:read --expires-in-days 1 --json";
    let key = good(args).await.remove(0);
    let secret = key["key"].as_str().unwrap();
    let by_key = server.client().with_token(secret);
    let all = ProjectList { limit: None, cursor: None, include_archived: None };
    assert!(by_key.call(None, all.clone()).await.unwrap().projects.is_empty());
    let id = key["id"].as_str().unwrap();
    assert_eq!(good("key list --json").await[0]["id"], id);
    good(&format!("key revoke {id} --json")).await;
    assert!(by_key.call(None, all).await.is_err());
    let (code, _, errors) = run("key create --name x --scope everything").await;
    assert_eq!((code, errors.contains("`everything` is none of")), (Some(2), true), "{errors}");

    let models = good("model list --json").await;
    assert!(models.iter().any(|model| model["providerId"] == "demo"), "{models:?}");
    let (code, text, _) = run("model list --provider demo").await;
    assert_eq!((code, text.contains("demo/script  (default)")), (Some(0), true), "{text}");

    assert_eq!(good("logout --json").await[0]["endedAtServer"], true);
    assert_eq!(good("logout --json").await[0]["loggedOut"], false);
    assert_eq!(run("user list").await.0, Some(2));

    // Of logins that follow each other the last one is left, with the one that `root` has from the beginning.
    let logins = async || {
        let listed = root.client.over_rest(&LoginList {}).await.unwrap().logins;
        listed.iter().map(|login| login.id.clone()).collect::<Vec<_>>()
    };
    let own = logins().await;
    assert_eq!(own.len(), 1);
    let mut before = Vec::new();
    for _ in 0..3 {
        good("login --email root@example.com --json").await;
        let now = logins().await;
        assert_eq!(now.len(), 2, "the login before has ended");
        assert!(now.contains(&own[0]) && now != before);
        before = now;
        assert_eq!(good("user list --json").await.len(), 2);
    }
    // That of another user ends too.
    let admin = json!({ "email": "root2@example.com", "username": "root2", "password": PASSWORD });
    assert!(root.post("/v1/admin/users", admin).await.is_success());
    good("login --email root2@example.com --json").await;
    assert_eq!(logins().await, own);
    // One that has ended already is nothing to speak of; one that cannot be ended is, and the new one counts.
    let user_id = user_of(&root, "root2@example.com").await;
    root.client.over_rest(&UserLogout { user_id }).await.unwrap();
    good("login --email root@example.com --json").await;
    assert_eq!(logins().await.len(), 2);
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&credentials).unwrap()).unwrap();
    let login = kept.as_object_mut().unwrap().values_mut().next().unwrap();
    login["accessToken"] = json!("not\na token");
    std::fs::write(&credentials, kept.to_string()).unwrap();
    let (code, text, errors) = run("login --email root@example.com --json").await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("the login before ends at the server in 30 days"), "{errors}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["user"]["username"], "root");
    assert_eq!(good("user list --json").await.len(), 3);
    good("logout --json").await;

    // A login for one command alone is not kept.
    good("user list --email root@example.com --json").await;
    assert_eq!(run("user list").await.0, Some(2));
}

#[tokio::test]
async fn shells_and_manuals_know_the_commands() {
    let dir = tempdir().unwrap();
    let none = dir.path().join("none");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, text, _) = iris("", &none, &format!("completions {shell}")).await;
        assert_eq!((code, text.contains("completions")), (Some(0), true), "{shell}");
    }
    let (code, text, _) = iris("", &none, "man").await;
    assert_eq!((code, text.contains(".TH iris 1")), (Some(0), true), "{text}");
    let pages = dir.path().join("man");
    let (code, _, errors) = iris("", &none, &format!("man --out {}", pages.display())).await;
    assert_eq!(code, Some(0), "{errors}");
    for page in ["iris.1", "iris-chat.1", "iris-project-export.1"] {
        assert!(pages.join(page).is_file(), "{page}");
    }
    for document in ["openapi", "asyncapi", "schema"] {
        let (code, text, _) = iris("", &none, &format!("{document} --json")).await;
        assert_eq!((code, text.lines().count()), (Some(0), 1), "{document}");
        serde_json::from_str::<Value>(&text).unwrap();
    }
    // Says where it listens for programs too.
    let mut command = serve(&dir.path().join("data"));
    command.arg("--json");
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        line
    });
    let line = iris_testkit::patiently("the address", line).await.unwrap();
    let url = serde_json::from_str::<Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();
    assert!(iris_client::Client::new(&url).unwrap().call(None, UserGet {}).await.is_err());
    child.kill().unwrap();
    child.wait().unwrap();
}
