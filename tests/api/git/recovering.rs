//! A server that ends while git works.

use std::path::{Path, PathBuf};
use std::process::Command;

use iris_client::RestAnswer;
use iris_protocol::{
    CloneState, ErrorCode, GitAction, GitCommit, GitFetch, GitPull, GitPush, GitStatus, GitSwitch,
    ProjectId,
};
use iris_sandbox::{Tier, share_directory};
use iris_store::CrashPoint;
use iris_testkit::{Person, ServerProcess, moment, patiently};
use serde_json::json;
use tempfile::TempDir;

use super::{Origin, clone, ended, from, git, open, ready};
use crate::bash::sandbox;
use crate::{code_of, is_held, refusal};

/// What a filter of the repository does until the server is killed: git waits for it, with its locks.
const HOLDS: &str = "[filter \"hold\"]\n\tsmudge = \"touch .git/reached; sleep 1000\"\n\
                     \tclean = \"touch .git/reached; sleep 1000\"\n";
/// The same, where it kills git.
const KILLS: &str = "[filter \"hold\"]\n\tclean = \"kill -9 $PPID\"\n";
/// The same, until somebody says that it may go on.
const WAITS: &str = "[filter \"hold\"]\n\
                     \tsmudge = \"touch .git/reached; until [ -e .git/go ]; do sleep 0.1; done; cat\"\n";

/// A server with one project that is cloned, which ends at a point once it is armed.
struct Scene {
    origin: Origin,
    dir: TempDir,
    data: PathBuf,
    admin: Person,
    project: ProjectId,
}

impl Scene {
    /// None on a machine whose sandbox cannot clone.
    async fn new(origin: Origin, point: Option<CrashPoint>) -> Option<(Self, ServerProcess)> {
        if !is_held(sandbox(), Tier::S3).await {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let server = ServerProcess::start(serve(&origin, &data, point)).await;
        open(dir.path());
        open(&data);
        let admin = crate::root(&server).await;
        let project = ready(&admin, from(origin.bare().display().to_string())).await;
        Some((Self { origin, dir, data, admin, project }, server))
    }

    fn arm(&self) {
        std::fs::write(self.dir.path().join("armed"), "").unwrap();
    }

    async fn restart(&mut self) -> ServerProcess {
        let server = ServerProcess::start(serve(&self.origin, &self.data, None)).await;
        self.admin = Person::new(&server.client(), self.admin.grant.clone());
        server
    }

    fn files(&self) -> PathBuf {
        self.data.join("projects").join(self.project.as_str()).join("files")
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.files().join(path)).ok()
    }

    /// What git says of the repository among the files.
    fn says(&self, arguments: &[&str]) -> String {
        let files = self.files();
        git(&self.origin.work(), &[&["-C", files.to_str().unwrap()][..], arguments].concat())
    }

    /// Has somebody else work with git among the files.
    fn elsewhere(&self, arguments: &[&str]) {
        self.says(arguments);
        self.share();
    }

    /// Has the commands of the server change what the test made.
    fn share(&self) {
        if let Some(uid) = sandbox().uid {
            for name in ["files", "scratch"] {
                share_directory(&self.files().with_file_name(name), uid, uid).unwrap();
            }
        }
    }

    /// What the filter of files `*.held` does.
    fn filter(&self, text: &str) {
        let path = self.files().join(".git/config");
        let config = std::fs::read_to_string(&path).unwrap().replace(HOLDS, "").replace(KILLS, "");
        std::fs::write(path, config + text).unwrap();
    }

    fn index_lock(&self) -> PathBuf {
        self.files().join(".git/index.lock")
    }

    async fn commit(&self, message: &str) -> Result<(), iris_client::ClientError> {
        let commit = GitCommit { message: message.to_owned(), paths: None };
        self.admin.client.call(Some(&self.project), commit).await.map(drop)
    }

    /// How much is written down that is to be settled.
    fn unsettled(&self) -> u64 {
        let database = rusqlite::Connection::open(self.data.join("root.db")).unwrap();
        database.query_row("SELECT count(*) FROM git_work", [], |row| row.get(0)).unwrap()
    }

    /// Asks for something and kills the server while git waits in the middle of it.
    async fn kill_in_the_middle(&self, server: ServerProcess, route: &str, body: &str) {
        self.filter(HOLDS);
        tokio::select! {
            answer = self.ask(route, body) => panic!("{answer:?}"),
            () = self.until_the_middle() => server.kill(),
        }
        self.filter("");
    }

    /// Asks under always the same key.
    async fn ask(&self, route: &str, body: &str) -> Option<RestAnswer> {
        let path = format!("/v1/projects/{}/git/{route}", self.project);
        let headers = [("content-type", "application/json"), ("idempotency-key", "key")];
        let (client, token) = (&self.admin.client, Some(self.admin.token()));
        client.raw("POST", &path, token, &headers, body.to_owned().into()).await.ok()
    }

    /// Waits until the filter is at work.
    async fn until_the_middle(&self) {
        self.until("the middle", || self.files().join(".git/reached").exists()).await;
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waits = async {
            while !is_so() {
                moment().await;
            }
        };
        patiently(what, waits).await;
    }

    /// How often something was told, from the beginning of the project.
    fn told(&self, action: GitAction) -> u64 {
        let database =
            rusqlite::Connection::open(self.files().with_file_name("project.db")).unwrap();
        let sql =
            "SELECT count(*) FROM events WHERE name = 'git.changed' AND payload ->> 'action' = ?1";
        let action = json!(action);
        database.query_row(sql, [action.as_str().unwrap()], |row| row.get(0)).unwrap()
    }
}

fn serve(origin: &Origin, data: &Path, point: Option<CrashPoint>) -> Command {
    let mut command = crate::iris(data);
    command.env("IRIS_PROJECT_ROOTS", origin.top());
    if let Some(uid) = sandbox().uid {
        command.env("IRIS_SANDBOX_UID", uid.to_string());
    }
    if let Some(point) = point {
        command.env("IRIS_CRASH_AT", point.as_str());
        command.env("IRIS_CRASH_WHEN", data.with_file_name("armed"));
    }
    command
}

/// One with files that a filter holds up, on another branch of its own lines.
fn with_held_files() -> Origin {
    let origin = Origin::new();
    origin.commit(".gitattributes", "*.held filter=hold\n", "Attributes");
    git(&origin.work(), &["switch", "-q", "-c", "held"]);
    origin.commit("a.txt", "of the branch\n", "Of the branch");
    origin.commit("m.held", "held\n", "Held");
    origin.commit("made.txt", "made\n", "Made");
    git(&origin.work(), &["rm", "-q", "b/c.txt"]);
    git(&origin.work(), &["commit", "-q", "-m", "Removed"]);
    git(&origin.work(), &["switch", "-q", "main"]);
    origin.send();
    origin
}

#[tokio::test]
async fn locks_of_a_commit_that_was_cut_off_are_removed_and_those_of_others_stay() {
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    scene.admin.client.file_put(&scene.project, "new.held", "new\n").await.unwrap();
    let (index, other) = (scene.files().join(".git/index.lock"), "refs/heads/other.lock");
    let other = scene.files().join(".git").join(other);
    std::fs::write(&other, "").unwrap();
    scene.kill_in_the_middle(server, "commits", r#"{"message":"New"}"#).await;
    assert!(index.exists());
    let _server = scene.restart().await;
    // By itself.
    scene.until("the end of the lock", || !index.exists()).await;
    assert!(other.exists());
    let made = scene.ask("commits", r#"{"message":"New"}"#).await.unwrap();
    assert!(made.is_success(), "{made:?}");
    assert_eq!(
        scene.says(&["log", "-1", "--format=%H %s"]),
        format!("{} New", made.json["data"]["id"].as_str().unwrap())
    );
}

#[tokio::test]
async fn a_switch_that_was_cut_off_is_taken_back_and_its_repeat_is_done() {
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    scene.admin.client.file_put(&scene.project, "mine.txt", "mine\n").await.unwrap();
    scene.kill_in_the_middle(server, "switch", r#"{"branch":"held"}"#).await;
    assert_eq!(scene.read("a.txt").as_deref(), Some("of the branch\n"), "it is half way");
    // What a command may have made where the settling has an index of its own.
    let scratch = scene.files().with_file_name("scratch");
    std::fs::create_dir_all(scratch.join("iris-index/in")).unwrap();
    std::fs::write(scratch.join("iris-index.lock"), "").unwrap();
    scene.share();
    let _server = scene.restart().await;
    scene.until("the end of the lock", || !scene.files().join(".git/index.lock").exists()).await;
    scene.until("the way back", || scene.read("a.txt").as_deref() == Some("one\n")).await;
    let status =
        || async { scene.admin.client.call(Some(&scene.project), GitStatus {}).await.unwrap() };
    let back = async {
        while status().await.files.len() != 1 {
            moment().await;
        }
    };
    patiently("the files as they were", back).await;
    assert_eq!(status().await.files[0].path, "mine.txt");
    assert_eq!((scene.read("b/c.txt").as_deref(), scene.read("made.txt")), (Some("two\n"), None));
    let again = scene.ask("switch", r#"{"branch":"held"}"#).await.unwrap();
    assert_eq!(again.json["data"]["branch"], "held", "{again:?}");
    assert_eq!(scene.read("made.txt").as_deref(), Some("made\n"));
    assert_eq!(scene.read("mine.txt").as_deref(), Some("mine\n"));
}

#[tokio::test]
async fn a_merge_that_was_cut_off_is_taken_back_wherever_it_was() {
    // In the middle of the files, of what can be merged.
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    let ours = GitCommit { message: "Ours".to_owned(), paths: None };
    scene.admin.client.file_put(&scene.project, "ours.txt", "ours\n").await.unwrap();
    scene.admin.client.call(Some(&scene.project), ours.clone()).await.unwrap();
    let before = scene.says(&["rev-parse", "HEAD"]);
    git(&scene.origin.work(), &["merge", "-q", "held"]);
    scene.origin.send();
    scene.kill_in_the_middle(server, "pull", r#"{"merge":true}"#).await;
    assert_eq!(scene.read("a.txt").as_deref(), Some("of the branch\n"), "it is half way");
    let server = scene.restart().await;
    scene.until("the way back", || scene.read("a.txt").as_deref() == Some("one\n")).await;
    scene.until("the end of the lock", || !scene.files().join(".git/index.lock").exists()).await;
    let merged = scene.ask("pull", r#"{"merge":true}"#).await.unwrap();
    assert!(merged.is_success(), "{merged:?}");
    assert_eq!(scene.says(&["rev-parse", "HEAD^1"]), before);
    assert_eq!(scene.says(&["status", "--porcelain"]), "");
    server.kill();

    // Behind a conflict.
    let Some((mut scene, server)) = Scene::new(Origin::new(), Some(CrashPoint::GitWorked)).await
    else {
        return;
    };
    scene.origin.commit("a.txt", "theirs\n", "Theirs");
    scene.origin.send();
    scene.admin.client.file_put(&scene.project, "a.txt", "ours\n").await.unwrap();
    scene.admin.client.call(Some(&scene.project), ours).await.unwrap();
    scene.arm();
    assert!(scene.ask("pull", r#"{"merge":true}"#).await.is_none());
    assert!(!server.exited().await.success());
    let head = scene.files().join(".git/MERGE_HEAD");
    assert!(head.exists() && scene.read("a.txt").unwrap().contains("<<<<<<<"));
    let _server = scene.restart().await;
    scene.until("the end of the merge", || !head.exists()).await;
    scene.until("the way back", || scene.read("a.txt").as_deref() == Some("ours\n")).await;
    let pull = GitPull { merge: true };
    let again = crate::refusal(scene.admin.client.call(Some(&scene.project), pull).await);
    assert_eq!(crate::code_of(&again).1, "merge_conflict");
}

#[tokio::test]
async fn a_merge_with_a_conflict_that_was_cut_off_among_the_files_is_taken_back() {
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    scene.admin.client.file_put(&scene.project, "a.txt", "ours\n").await.unwrap();
    scene.commit("Ours").await.unwrap();
    git(&scene.origin.work(), &["merge", "-q", "held"]);
    scene.origin.send();
    scene.kill_in_the_middle(server, "pull", r#"{"merge":true}"#).await;
    let half = scene.read("a.txt").unwrap();
    assert!(half.contains("<<<<<<<") && !scene.files().join(".git/MERGE_HEAD").exists(), "{half}");
    let _server = scene.restart().await;
    scene.until("the end of it", || scene.unsettled() == 0).await;
    assert_eq!(scene.read("a.txt").as_deref(), Some("ours\n"));
    assert_eq!(scene.says(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn a_file_in_place_of_a_directory_is_taken_back_and_the_other_way_round() {
    let origin = with_held_files();
    let work = origin.work();
    git(&work, &["switch", "-q", "held"]);
    origin.commit("b", "in place of a directory\n", "File");
    std::fs::remove_file(work.join("a.txt")).unwrap();
    std::fs::create_dir(work.join("a.txt")).unwrap();
    origin.commit("a.txt/in.txt", "in place of a file\n", "Directory");
    git(&work, &["switch", "-q", "main"]);
    origin.send();
    let Some((mut scene, server)) = Scene::new(origin, None).await else { return };
    scene.kill_in_the_middle(server, "switch", r#"{"branch":"held"}"#).await;
    assert!(scene.read("b").is_some() && scene.read("a.txt/in.txt").is_some(), "not half way");
    let _server = scene.restart().await;
    scene.until("the end of it", || scene.unsettled() == 0).await;
    assert_eq!(scene.read("b/c.txt").as_deref(), Some("two\n"));
    assert_eq!(scene.read("a.txt").as_deref(), Some("one\n"));
    assert_eq!(scene.says(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn what_was_cut_off_on_a_branch_without_commits_is_taken_back() {
    for (route, body) in [("pull", r#"{"merge":true}"#), ("switch", r#"{"branch":"held"}"#)] {
        let origin = with_held_files();
        git(&origin.work(), &["merge", "-q", "held"]);
        for branch in ["main", "feature", "held"] {
            origin.says(&["update-ref", "-d", &format!("refs/heads/{branch}")]);
        }
        let Some((mut scene, server)) = Scene::new(origin, None).await else { return };
        scene.origin.send();
        scene.admin.client.call(Some(&scene.project), GitFetch {}).await.unwrap();
        scene.kill_in_the_middle(server, route, body).await;
        assert_eq!(scene.read("a.txt").as_deref(), Some("of the branch\n"), "{route}");
        let _server = scene.restart().await;
        scene.until("the end of it", || scene.unsettled() == 0).await;
        assert_eq!(scene.read("a.txt"), None, "{route}");
        assert_eq!(scene.says(&["status", "--porcelain"]), "", "{route}");
        let again = scene.ask(route, body).await.unwrap();
        assert!(again.is_success(), "{again:?}");
        assert_eq!(scene.read("a.txt").as_deref(), Some("of the branch\n"), "{route}");
    }
}

#[tokio::test]
async fn what_cannot_be_settled_is_given_up_after_some_tries() {
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    scene.kill_in_the_middle(server, "switch", r#"{"branch":"held"}"#).await;
    // Whoever compares this with what it was to become is killed.
    std::fs::write(scene.files().join("m.held"), "held\n").unwrap();
    scene.filter(KILLS);
    scene.share();
    let _server = scene.restart().await;
    let mut tries = 0;
    while scene.unsettled() > 0 {
        tries += 1;
        assert!(tries <= 5, "for ever");
        assert_eq!(refusal(scene.commit("All").await).code, ErrorCode::Internal);
    }
    scene.filter("");
    scene.commit("All").await.unwrap();
    assert_eq!(scene.says(&["show", "HEAD:m.held"]), "held");
}

#[tokio::test]
async fn what_was_cut_off_in_a_repository_that_is_gone_is_forgotten() {
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    scene.kill_in_the_middle(server, "switch", r#"{"branch":"held"}"#).await;
    std::fs::remove_dir_all(scene.files().join(".git")).unwrap();
    let _server = scene.restart().await;
    scene.until("the end of it", || scene.unsettled() == 0).await;
    assert_eq!(scene.read("a.txt").as_deref(), Some("of the branch\n"));
}

#[tokio::test]
async fn what_was_cut_off_of_a_fetch_is_settled_in_the_turn_of_the_files() {
    let Some((scene, _server)) = Scene::new(with_held_files(), None).await else { return };
    scene.filter(WAITS);
    let (client, project) = (&scene.admin.client, Some(&scene.project));
    let lock = scene.files().join(".git/refs/remotes/origin/left.lock");
    let switch = GitSwitch { branch: "held".to_owned(), create: false, from: None };
    let fetching = async {
        scene.until_the_middle().await;
        std::fs::write(&lock, "").unwrap();
        let database = rusqlite::Connection::open(scene.data.join("root.db")).unwrap();
        let sql = r#"INSERT INTO git_work (project_id, part, work, by, at)
                     VALUES (?1, 'branches', '{"kind":"track","locks":[]}', ?2, 0)"#;
        database.execute(sql, [scene.project.as_str(), scene.admin.id().as_str()]).unwrap();
        client.call(project, GitFetch {}).await
    };
    let looking = async {
        scene.until("both of them", || scene.unsettled() == 2).await;
        for _ in 0..10 {
            client.call(project, GitStatus {}).await.unwrap();
            assert!(lock.exists(), "commands could have begun meanwhile");
        }
        std::fs::write(scene.files().join(".git/go"), "").unwrap();
    };
    let (switched, fetched, ()) =
        tokio::join!(client.call(project, switch), fetching, patiently("all of it", looking));
    assert_eq!(switched.unwrap().branch.as_deref(), Some("held"));
    fetched.unwrap();
    assert!(!lock.exists());
    assert_eq!(scene.unsettled(), 0);
}

#[tokio::test]
async fn what_others_did_since_a_switch_was_cut_off_is_not_taken_back() {
    for is_merged in [true, false] {
        let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
        scene.kill_in_the_middle(server, "switch", r#"{"branch":"held"}"#).await;
        std::fs::remove_file(scene.index_lock()).unwrap();
        if is_merged {
            scene.elsewhere(&["reset", "-q", "--hard"]);
            scene.elsewhere(&["clean", "-q", "-f", "-d"]);
            scene.elsewhere(&["merge", "-q", "origin/held"]);
        } else {
            scene.elsewhere(&["branch", "third"]);
            scene.elsewhere(&["symbolic-ref", "HEAD", "refs/heads/third"]);
        }
        let before = scene.says(&["status", "--porcelain"]);
        assert_eq!(before.is_empty(), is_merged, "{before}");
        let _server = scene.restart().await;
        scene.until("the end of it", || scene.unsettled() == 0).await;
        assert_eq!(scene.says(&["status", "--porcelain"]), before);
        assert_eq!(scene.read("a.txt").as_deref(), Some("of the branch\n"));
        if is_merged {
            let nothing = refusal(scene.commit("Nothing").await);
            assert_eq!(code_of(&nothing).1, "nothing_to_commit");
        }
    }
}

#[tokio::test]
async fn what_others_did_since_a_merge_was_cut_off_is_not_taken_back() {
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    scene.admin.client.file_put(&scene.project, "ours.txt", "ours\n").await.unwrap();
    scene.commit("Ours").await.unwrap();
    git(&scene.origin.work(), &["merge", "-q", "held"]);
    scene.origin.send();
    scene.kill_in_the_middle(server, "pull", r#"{"merge":true}"#).await;
    std::fs::remove_file(scene.index_lock()).unwrap();
    // The same files as a commit of their own.
    scene.elsewhere(&["reset", "-q", "--hard"]);
    scene.elsewhere(&["clean", "-q", "-f", "-d"]);
    scene.elsewhere(&["checkout", "-q", "origin/main", "--", "."]);
    scene.elsewhere(&["commit", "-q", "-m", "Picked"]);
    let _server = scene.restart().await;
    scene.until("the end of it", || scene.unsettled() == 0).await;
    assert_eq!(scene.says(&["status", "--porcelain"]), "");
    assert_eq!(scene.read("a.txt").as_deref(), Some("of the branch\n"));
}

#[tokio::test]
async fn what_cannot_be_taken_back_stays_and_holds_nobody_up() {
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    scene.kill_in_the_middle(server, "switch", r#"{"branch":"held"}"#).await;
    std::fs::remove_file(scene.index_lock()).unwrap();
    // Neither what was there nor what was to be, and staged: git does not go over it.
    std::fs::write(scene.files().join("a.txt"), "of somebody else\n").unwrap();
    scene.elsewhere(&["add", "a.txt"]);
    let _server = scene.restart().await;
    scene.commit("All").await.unwrap();
    assert_eq!(scene.unsettled(), 0);
    assert_eq!(scene.read("a.txt").as_deref(), Some("of somebody else\n"));
    assert_eq!(scene.says(&["show", "HEAD:a.txt"]), "of somebody else");
}

#[tokio::test]
async fn a_git_that_somebody_kills_is_no_refusal_and_what_it_left_is_settled_at_once() {
    let Some((scene, _server)) = Scene::new(with_held_files(), None).await else { return };
    scene.admin.client.file_put(&scene.project, "new.held", "new\n").await.unwrap();
    scene.filter(KILLS);
    let killed = refusal(scene.commit("New").await);
    assert_eq!(code_of(&killed).0, ErrorCode::Internal, "{killed:?}");
    assert!(!scene.index_lock().exists());
    assert_eq!(scene.unsettled(), 0);
    scene.filter("");
    scene.commit("New").await.unwrap();
    assert_eq!(scene.says(&["show", "HEAD:new.held"]), "new");
}

#[tokio::test]
async fn locks_behind_a_link_stay_and_beside_too_many_git_does_not_begin() {
    let Some((mut scene, server)) = Scene::new(with_held_files(), None).await else { return };
    scene.admin.client.file_put(&scene.project, "new.held", "new\n").await.unwrap();
    let (git, linked) = (scene.files().join(".git"), scene.files().join("linked"));
    std::fs::create_dir(&linked).unwrap();
    let info = git.join("objects/info");
    if info.exists() {
        std::fs::remove_dir_all(&info).unwrap();
    }
    std::os::unix::fs::symlink(&linked, &info).unwrap();
    scene.kill_in_the_middle(server, "commits", r#"{"message":"New"}"#).await;
    let (theirs, left) = (linked.join("theirs.lock"), git.join("objects/pack/left.lock"));
    std::fs::write(&theirs, "").unwrap();
    std::fs::write(&left, "").unwrap();
    scene.share();
    let _server = scene.restart().await;
    scene.until("the end of it", || scene.unsettled() == 0).await;
    assert!(theirs.exists() && !left.exists() && !scene.index_lock().exists());

    for n in 0..=1_000 {
        std::fs::write(git.join(format!("{n}.lock")), "").unwrap();
    }
    let busy = refusal(scene.commit("New").await);
    assert_eq!(code_of(&busy), (ErrorCode::Conflict, "git_busy"));
    std::fs::remove_file(git.join("0.lock")).unwrap();
    scene.commit("New").await.unwrap();
    assert!(git.join("1.lock").exists());
}

#[tokio::test]
async fn a_branch_that_was_half_made_goes_and_its_repeat_makes_it() {
    let Some((mut scene, server)) = Scene::new(Origin::new(), Some(CrashPoint::GitWorked)).await
    else {
        return;
    };
    let (body, made) = (r#"{"branch":"mine","create":true}"#, "refs/heads/mine");
    scene.arm();
    assert!(scene.ask("switch", body).await.is_none());
    assert!(!server.exited().await.success());
    // The last thing that git does is as if it had not been done.
    assert_eq!(scene.says(&["symbolic-ref", "HEAD"]), made);
    scene.elsewhere(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    let _server = scene.restart().await;
    scene.until("the end of it", || scene.unsettled() == 0).await;
    assert_eq!(scene.says(&["for-each-ref", made]), "");
    let again = scene.ask("switch", body).await.unwrap();
    assert_eq!(again.json["data"]["branch"], "mine", "{again:?}");
}

#[tokio::test]
async fn the_same_request_twice_at_once_is_done_once() {
    let Some((scene, _server)) = Scene::new(Origin::new(), None).await else { return };
    let body = r#"{"branch":"mine","create":true}"#;
    let (one, other) = tokio::join!(scene.ask("switch", body), scene.ask("switch", body));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.is_success() && other.is_success(), "{one:?} {other:?}");
    assert_eq!(one.json["data"], other.json["data"]);
    assert_eq!(scene.told(GitAction::Switched), 1);
}

#[tokio::test]
async fn a_data_directory_that_was_moved_is_pushed_from() {
    let Some((mut scene, server)) = Scene::new(Origin::new(), None).await else { return };
    server.kill();
    let moved = scene.dir.path().join("moved");
    std::fs::rename(&scene.data, &moved).unwrap();
    scene.data = moved;
    let _server = scene.restart().await;
    scene.admin.client.file_put(&scene.project, "a.txt", "moved\n").await.unwrap();
    scene.commit("Moved").await.unwrap();
    let push = GitPush { branch: None };
    scene.admin.client.call(Some(&scene.project), push).await.unwrap();
    assert_eq!(scene.origin.says(&["show", "main:a.txt"]), "moved");
}

#[tokio::test]
async fn what_git_did_before_the_server_ended_is_what_a_repeat_is_answered() {
    for (route, body) in [
        ("commits", r#"{"message":"New"}"#),
        ("switch", r#"{"branch":"mine","create":true}"#),
        ("pull", r#"{"merge":true}"#),
    ] {
        let Some((mut scene, server)) =
            Scene::new(Origin::new(), Some(CrashPoint::GitWorked)).await
        else {
            return;
        };
        scene.origin.commit("b/c.txt", "theirs\n", "Theirs");
        scene.origin.send();
        scene.admin.client.file_put(&scene.project, "a.txt", "new\n").await.unwrap();
        if route == "pull" {
            let ours = GitCommit { message: "Ours".to_owned(), paths: None };
            scene.admin.client.call(Some(&scene.project), ours).await.unwrap();
        }
        let before = scene.says(&["rev-parse", "HEAD"]);
        scene.arm();
        assert!(scene.ask(route, body).await.is_none());
        assert!(!server.exited().await.success());
        let after = scene.says(&["rev-parse", "HEAD"]);
        assert_eq!(after == before, route == "switch", "{route}");
        let _server = scene.restart().await;
        // Whether the server or the repeat comes first.
        let repeated = scene.ask(route, body).await.unwrap();
        assert!(repeated.is_success(), "{repeated:?}");
        let data = &repeated.json["data"];
        match route {
            "commits" => assert_eq!(data["id"], after.as_str(), "{data}"),
            "switch" => assert_eq!(data["branch"], "mine", "{data}"),
            _ => assert_eq!(data["commit"], after.as_str(), "{data}"),
        }
        assert_eq!(scene.says(&["rev-parse", "HEAD"]), after, "{route}");
        let again = scene.ask(route, body).await.unwrap();
        assert_eq!(again.json["data"], *data, "{route}");
        let action = match route {
            "commits" => GitAction::Committed,
            "switch" => GitAction::Switched,
            _ => GitAction::Pulled,
        };
        assert_eq!(scene.told(action), 1, "{route}");
    }
}

#[tokio::test]
async fn a_clone_that_a_crash_cut_off_is_begun_anew_at_the_next_start() {
    let origin = Origin::new();
    if !is_held(sandbox(), Tier::S3).await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = |point: Option<CrashPoint>| {
        let mut command = crate::iris(&data);
        command.env("IRIS_PROJECT_ROOTS", origin.top());
        if let Some(uid) = sandbox().uid {
            command.env("IRIS_SANDBOX_UID", uid.to_string());
        }
        if let Some(point) = point {
            command.env("IRIS_CRASH_AT", point.as_str());
        }
        command
    };
    let server = ServerProcess::start(serve(Some(CrashPoint::CloneHalf))).await;
    open(dir.path());
    open(&data);
    let admin = crate::root(&server).await;
    let id = clone(&admin, from(origin.bare().display().to_string())).await.id;
    assert!(!server.exited().await.success(), "the server did not come to the middle");
    let place = data.join("projects").join(id.as_str());
    assert!(place.join("git/mirror.git").exists() && !place.join("files/a.txt").exists());
    // What lies around of the first time is not what the second begins with.
    std::fs::write(place.join("files/strange.txt"), "x").unwrap();

    let server = ServerProcess::start(serve(None)).await;
    let again = Person::new(&server.client(), admin.grant.clone());
    let found = ended(&again, &id).await;
    assert_eq!((found.state, found.error), (CloneState::Ready, None));
    assert_eq!(std::fs::read_to_string(place.join("files/a.txt")).unwrap(), "one\n");
    assert!(!place.join("files/strange.txt").exists());
    server.kill();
}
