//! Agents, files, and what is said in the project's room alone.

use iris_protocol::*;
use iris_store::WriteContext;
use iris_store::project::*;
use iris_store::root::OutboxEntry;

use crate::fixture::*;

fn create_agent(n: u128) -> CreateAgent {
    CreateAgent {
        id: AgentId::from_bits(n),
        name: format!("agent-{n:03}"),
        description: "answers in few words".into(),
        mode: AgentMode::Subagent,
        prompt: "be brief".into(),
        model: Some(model()),
        tools: vec!["read".into(), "write".into()],
        budget: None,
        tuning: iris_protocol::AgentTuning::default(),
        permissions: vec![],
        quotas: Quotas::default(),
        by: ann(),
        at: NOW,
    }
}

#[tokio::test]
async fn an_agent_is_created_changed_and_deleted() {
    let fixture = Fixture::new();
    let created = fixture.write(create_agent(1)).await.unwrap();
    assert_eq!(fixture.reader().agents().await.unwrap(), std::slice::from_ref(&created));
    let twice = CreateAgent { id: AgentId::from_bits(2), ..create_agent(1) };
    assert_eq!(fixture.refusal(twice).await, (ErrorCode::Conflict, "name_taken".into()));

    let update = UpdateAgent {
        name: "agent-001".into(),
        description: Some("answers".into()),
        mode: Some(AgentMode::Primary),
        prompt: None,
        model: None,
        tools: Some(vec![]),
        tuning: iris_protocol::AgentTuning::default(),
        permissions: None,
        budget: None,
        by: bob(),
        at: NOW + 1,
    };
    let updated = fixture.write(update.clone()).await.unwrap();
    assert_eq!(
        updated,
        Agent { description: "answers".into(), mode: AgentMode::Primary, tools: vec![], ..created }
    );
    let delete = DeleteAgent { name: "agent-001".into(), by: bob(), at: NOW + 2 };
    assert_eq!(fixture.write(delete.clone()).await.unwrap(), updated);
    assert_eq!(fixture.take_events(), ["P agent.updated"; 3]);
    assert_eq!(fixture.refusal(update).await.0, ErrorCode::NotFound);
    assert_eq!(fixture.refusal(delete).await.0, ErrorCode::NotFound);
    assert_eq!(fixture.reader().agents().await.unwrap(), []);
}

#[tokio::test]
async fn a_project_has_a_bounded_number_of_agents() {
    let fixture = Fixture::new();
    for n in 0..u128::from(AGENTS_MAX) {
        fixture.write(create_agent(n)).await.unwrap();
    }
    let refusal = fixture.refusal(create_agent(u128::from(AGENTS_MAX))).await;
    assert_eq!(refusal, (ErrorCode::Conflict, "too_many_agents".into()));
    let agents = fixture.reader().agents().await.unwrap();
    assert_eq!(agents.len() as u64, AGENTS_MAX);
    assert!(agents.is_sorted_by_key(|agent| agent.name.clone()));
}

#[tokio::test]
async fn a_file_that_a_user_wrote_has_a_version() {
    let fixture = Fixture::new();
    let write = wrote("src/a.rs", b"first", &ann());
    let recorded = fixture.write(write).await.unwrap();
    let file = file_of(&recorded.versions[0]);
    assert_eq!((file.version, file.updated_at, file.updated_by), (1, Some(NOW), Some(ann())));
    let recorded = fixture.write(wrote("src/a.rs", b"second", &bob())).await.unwrap();
    let file = file_of(&recorded.versions[0]);
    assert_eq!(fixture.reader().file("src/a.rs".into()).await.unwrap(), Some(file));
    let events = fixture.take_stored();
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), ["P file.created", "P file.updated"]);
    assert!(!events[0].payload.contains("sessionId"));
    assert_eq!(fixture.reader().file("src/b.rs".into()).await.unwrap(), None);
}

#[tokio::test]
async fn only_durable_events_are_published() {
    let fixture = Fixture::new();
    let event = Event::MemberRemoved { user_id: bob() };
    fixture.write(publish([(1, event)])).await.unwrap();
    assert_eq!(fixture.take_events(), ["P member.removed"]);
    let event = Event::RoomLeft { room: "x".into(), code: ErrorCode::NotFound };
    let refusal = fixture.refusal(publish([(2, event)])).await;
    assert_eq!(refusal.0, ErrorCode::Internal);
}

/// Events as they come from the root database, by their ids there.
fn publish<const N: usize>(events: [(u64, Event); N]) -> PublishOutbox {
    let entry = |(id, event)| OutboxEntry { id, event, by: ann(), at: NOW };
    PublishOutbox { entries: events.map(entry).into() }
}

#[tokio::test]
async fn an_event_of_the_root_database_is_published_once_however_often_it_comes() {
    let fixture = Fixture::new();
    let removed = |id| (id, Event::MemberRemoved { user_id: bob() });
    assert_eq!(fixture.reader().outbox_seq().await.unwrap(), 0);
    assert_eq!(fixture.write(publish([removed(3)])).await.unwrap(), 1);
    fixture.write(create_session(1)).await.unwrap();
    let again = fixture
        .commit(publish([removed(3), removed(7), removed(8)]), WriteContext::default())
        .await
        .unwrap();
    assert_eq!((again.output, again.seq), (5, Some(5)));
    let late =
        fixture.commit(publish([removed(3), removed(7)]), WriteContext::default()).await.unwrap();
    assert_eq!((late.output, late.seq), (5, None));
    assert_eq!(fixture.reader().outbox_seq().await.unwrap(), 5);
    let names = fixture.take_events();
    assert_eq!(names.iter().filter(|name| *name == "P member.removed").count(), 3, "{names:?}");
}

#[tokio::test]
async fn of_events_that_come_together_all_are_published_or_none() {
    let fixture = Fixture::new();
    let removed = Event::MemberRemoved { user_id: bob() };
    let left = Event::RoomLeft { room: "x".into(), code: ErrorCode::NotFound };
    fixture.refusal(publish([(1, removed.clone()), (2, left)])).await;
    assert_eq!(fixture.reader().head().await.unwrap(), 0);
    fixture.write(publish([(1, removed)])).await.unwrap();
    assert_eq!(fixture.take_events(), ["P member.removed"]);
}
