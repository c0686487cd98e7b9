//! Agents in `.iris/agents`: read, told of when they change, and never more than rules allow.

use iris_protocol::{
    AgentCreate, AgentDelete, AgentGet, AgentList, AgentPage, AgentSource, ErrorCode, Event,
    RoomRequest, RunStatus, SessionCreate, Subscribe, ToolState,
};
use iris_testkit::{
    AppOptions, FakeProvider, Person, TestApp, calls_of, chat, spawn_app, spawn_app_with, text_of,
};
use serde_json::json;

use crate::{code_of, refusal};

struct Place {
    app: TestApp,
    ann: Person,
    project: iris_protocol::ProjectId,
}

impl Place {
    async fn on(app: TestApp) -> Self {
        let ann = app.user("ann").await;
        let project = ann.project("p").await.id;
        Self { app, ann, project }
    }

    fn put(&self, name: &str, text: &str) {
        let files = self.app.data_dir().join("projects").join(self.project.as_str()).join("files");
        let directory = files.join(".iris/agents");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        let files = self.app.data_dir().join("projects").join(self.project.as_str()).join("files");
        std::fs::remove_file(files.join(".iris/agents").join(name)).unwrap();
    }

    async fn list(&self) -> AgentPage {
        self.ann.client.call(Some(&self.project), AgentList {}).await.unwrap()
    }
}

fn problems(page: &AgentPage) -> Vec<(&str, u32, &str)> {
    let problems = page.problems.iter();
    problems.map(|it| (it.path.as_str(), it.line, it.message.as_str())).collect()
}

#[tokio::test]
async fn a_list_says_where_each_agent_is_from_and_what_is_wrong_with_files() {
    let place = Place::on(spawn_app().await).await;
    place.put(
        "reviewer.md",
        "---\ndescription: Reads\nmode: subagent\ntools: [read, nope]\n---\nBe strict.",
    );
    place.put("twice.md", "---\nmode: all\nname: reviewer\n---\n");
    place.put(
        "bad.md",
        "---\nmodel: claude/x\npermissions:\n  - permission: bash\n    action: allow\n---\n",
    );
    place.put("plan.md", "---\n---\nDo everything.");
    place.put("notes.txt", "no agent");
    let page = place.list().await;
    let found: Vec<_> = page.agents.iter().map(|it| (it.name.as_str(), it.source)).collect();
    let builtin =
        ["default", "plan", "explore", "general"].map(|name| (name, AgentSource::Builtin));
    assert_eq!(found[..4], builtin);
    assert_eq!(found[4..], [("reviewer", AgentSource::File)]);
    let reviewer = &page.agents[4];
    assert_eq!(reviewer.path.as_deref(), Some(".iris/agents/reviewer.md"));
    assert_eq!(
        (reviewer.prompt.as_str(), &reviewer.tools[..]),
        ("Be strict.", &["read".to_owned(), "nope".to_owned()][..])
    );
    let [bad, plan, unknown, twice] = problems(&page)[..] else { panic!("{:?}", page.problems) };
    assert_eq!((bad.0, bad.1), (".iris/agents/bad.md", 5));
    assert!(bad.2.contains("cannot allow"), "{bad:?}");
    assert_eq!((plan.0, plan.1), (".iris/agents/plan.md", 1));
    assert!(unknown.1 == 4 && unknown.2.contains("`nope`"), "{unknown:?}");
    assert!(
        twice.1 == 3 && twice.2.contains("reviewer.md` defines the agent `reviewer`"),
        "{twice:?}"
    );
    // Over REST, read one; hidden ones are read and not listed.
    let path = format!("/v1/projects/{}/agents", place.project);
    let listed = place.ann.get(&path).await;
    assert_eq!(listed.json["meta"]["problems"].as_array().unwrap().len(), 4, "{listed:?}");
    let one = place.ann.get(&format!("{path}/reviewer")).await;
    assert_eq!(one.json["data"]["source"], "file");
    let hidden = place.ann.get(&format!("{path}/compaction")).await;
    assert_eq!(
        (&hidden.json["data"]["hidden"], &hidden.json["data"]["tools"]),
        (&json!(true), &json!([]))
    );
}

#[tokio::test]
async fn changes_of_a_file_are_told_and_count_for_the_next_run() {
    let provider = FakeProvider::start((0..3).map(|_| chat::says("ok"))).await;
    let place =
        Place::on(spawn_app_with(AppOptions::with_provider(provider.base_url())).await).await;
    let mut socket = place.ann.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{}", place.project))];
    let subscribe = Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(&place.project), subscribe).await.unwrap();
    let told = async |socket: &mut iris_client::Socket| loop {
        let frame = iris_testkit::patiently("agent.updated", socket.next_event()).await.unwrap();
        if let Event::AgentUpdated { name, agent } = frame.event {
            assert_eq!(frame.meta.by, None);
            return (name, agent.map(|agent| agent.prompt));
        }
    };
    // Nobody asks.
    place.put("poet.md", "---\ntemperature: 0.25\ntopP: 0.5\n---\nRhyme.");
    assert_eq!(told(&mut socket).await, ("poet".to_owned(), Some("Rhyme.".to_owned())));
    let agent = Some("poet".to_owned());
    let request = SessionCreate { title: None, agent, model: None, mode: None };
    let session = place.ann.client.call(Some(&place.project), request).await.unwrap().session.id;
    let mut talk = place.ann.join(&place.project, &session).await;
    talk.ask("hello").await;
    place.put("poet.md", "---\n---\nIn prose, please.");
    talk.ask("hello").await;
    assert_eq!(told(&mut socket).await, ("poet".to_owned(), Some("In prose, please.".to_owned())));
    let asked = provider.asked();
    let system =
        |index: usize| asked[index].body["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(system(0).starts_with("Rhyme.\n\n") && system(1).starts_with("In prose, please."));
    assert_eq!(
        (&asked[0].body["temperature"], &asked[0].body["top_p"]),
        (&json!(0.25), &json!(0.5))
    );
    assert_eq!(asked[1].body.get("temperature"), None);
    // Half of a file lifts no limit: what it said before counts.
    place.put("poet.md", "---\ntemperature: [");
    talk.ask("hello").await;
    assert_eq!(provider.asked()[2].body["messages"][0], asked[1].body["messages"][0]);
    let page = place.list().await;
    assert!(problems(&page)[0].2.ends_with("counts until it is mended"), "{:?}", page.problems);
    // Gone, also while the server was not there: told once.
    place.remove("poet.md");
    assert_eq!(told(&mut socket).await, ("poet".to_owned(), None));
    let error = refusal(talk.try_send("hello", None).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "agent_missing"));
}

#[tokio::test]
async fn an_agent_in_a_file_narrows_what_rules_allow_and_stops_after_its_steps() {
    let place = Place::on(spawn_app().await).await;
    place.put(
        "careful.md",
        "---\nmaxSteps: 2\npermissions:\n  - { permission: read, pattern: \"*.txt\", action: deny }\n---\n",
    );
    place.ann.client.file_put(&place.project, "a.txt", "a").await.unwrap();
    let agent = Some("careful".to_owned());
    let request = SessionCreate { title: None, agent, model: None, mode: None };
    let session = place.ann.client.call(Some(&place.project), request).await.unwrap().session.id;
    let mut talk = place.ann.join(&place.project, &session).await;
    let run = talk.send_message("call read {\"path\": \"a.txt\"}\nrepeat").await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    assert_eq!(answer.finish_reason, Some(iris_protocol::FinishReason::Steps));
    let calls = calls_of(&answer);
    assert_eq!((calls.len(), calls[0].state), (2, ToolState::Denied));
    assert!(calls[0].error.as_ref().unwrap().contains("a rule of the agent denies"), "{calls:?}");
}

#[tokio::test]
async fn agents_of_the_project_come_before_files_and_files_are_changed_as_files() {
    let place = Place::on(spawn_app().await).await;
    place.put("poet.md", "---\n---\nRhyme.");
    let call = async |name: &str| {
        let get = AgentGet { name: name.to_owned() };
        place.ann.client.call(Some(&place.project), get).await.unwrap().agent
    };
    assert_eq!(call("poet").await.source, AgentSource::File);
    let delete = AgentDelete { name: "poet".to_owned() };
    let error = refusal(place.ann.client.call(Some(&place.project), delete.clone()).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "agent_in_file"));
    let path = format!("/v1/projects/{}/agents/poet", place.project);
    let changed = place.ann.rest("PATCH", &path, Some(json!({ "prompt": "x" }))).await;
    assert_eq!(changed.status, 409, "{changed:?}");
    let create = AgentCreate {
        name: "poet".to_owned(),
        description: None,
        mode: None,
        prompt: Some("By hand.".to_owned()),
        model: None,
        tools: None,
        tuning: iris_protocol::AgentTuning { max_steps: Some(3), ..Default::default() },
        permissions: None,
        budget: None,
    };
    place.ann.client.call(Some(&place.project), create.clone()).await.unwrap();
    let poet = call("poet").await;
    assert_eq!((poet.source, poet.tuning.max_steps), (AgentSource::Project, Some(3)));
    let page = place.list().await;
    assert_eq!(page.agents.iter().filter(|agent| agent.name == "poet").count(), 1);
    assert!(problems(&page)[0].2.contains("that one counts"), "{:?}", page.problems);
    place.ann.client.call(Some(&place.project), delete).await.unwrap();
    assert_eq!(call("poet").await.prompt, "Rhyme.");
    let tuning = iris_protocol::AgentTuning { temperature: Some(2.5), ..Default::default() };
    let create = AgentCreate { name: "hot".to_owned(), tuning, ..create };
    let error = refusal(place.ann.client.call(Some(&place.project), create).await);
    assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "invalid_tuning"));
}

#[tokio::test]
async fn agents_cannot_write_agents_and_links_are_none() {
    let place = Place::on(spawn_app().await).await;
    let mut talk = place.ann.conversation_in(&place.project).await;
    let content = json!({ "path": ".iris/agents/mine.md", "content": "---\n---\nI may." });
    let answer = talk.ask(&format!("call write {content}\nstep\nsay done")).await;
    assert_eq!(
        (calls_of(&answer)[0].state, text_of(&answer).as_str()),
        (ToolState::Denied, "done")
    );
    place.put("real.txt", "---\n---\nElsewhere.");
    let files = place.app.data_dir().join("projects").join(place.project.as_str()).join("files");
    std::os::unix::fs::symlink("real.txt", files.join(".iris/agents/link.md")).unwrap();
    let page = place.list().await;
    assert_eq!((page.agents.len(), page.problems.len()), (4, 0), "{page:?}");
}
