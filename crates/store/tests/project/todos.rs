//! The to-do lists of sessions.

use iris_protocol::*;
use iris_store::StoreError;
use iris_store::project::*;

use crate::fixture::*;

fn entry(id: Option<u128>, new_id: u128, content: &str) -> NewTodo {
    NewTodo {
        id: id.map(TodoId::from_bits),
        new_id: TodoId::from_bits(new_id),
        content: content.into(),
        status: TodoStatus::InProgress,
        priority: TodoPriority::Low,
    }
}

fn writing(session: u128, todos: Vec<NewTodo>) -> WriteTodos {
    WriteTodos { session_id: SessionId::from_bits(session), todos, by: ann(), at: NOW }
}

#[tokio::test]
async fn a_list_is_replaced_whole_and_known_ids_stay() {
    let fixture = Fixture::with_session().await;
    fixture.take_events();
    let list = vec![entry(None, 1, "a"), entry(Some(7), 2, "b")];
    let first = fixture.write(writing(1, list)).await.unwrap();
    let ids = |todos: &[Todo]| todos.iter().map(|todo| todo.id.clone()).collect::<Vec<_>>();
    let expected = |bits: &[u128]| bits.iter().copied().map(TodoId::from_bits).collect::<Vec<_>>();
    // Nobody gave out the 7.
    assert_eq!(ids(&first), expected(&[1, 2]));
    assert_eq!(fixture.take_events(), ["S todo.updated"]);
    assert_eq!(fixture.reader().todos(session_id()).await.unwrap(), first);

    let list = vec![entry(Some(2), 3, "b"), entry(Some(2), 4, "twice"), entry(None, 5, "c")];
    let second = fixture.write(writing(1, list)).await.unwrap();
    assert_eq!(ids(&second), expected(&[2, 4, 5]));
    let snapshot = fixture.reader().snapshot(session_id(), 50, None).await.unwrap().unwrap();
    assert_eq!(snapshot.todos, second);
    assert_eq!(fixture.write(writing(1, vec![])).await.unwrap(), []);
    assert_eq!(fixture.reader().todos(session_id()).await.unwrap(), []);
}

#[tokio::test]
async fn a_list_belongs_to_its_session_and_goes_with_it() {
    let fixture = Fixture::with_session().await;
    fixture.write(create_session(2)).await.unwrap();
    fixture.write(writing(1, vec![entry(None, 1, "a")])).await.unwrap();
    fixture.write(writing(2, vec![entry(Some(1), 2, "a")])).await.unwrap();
    let other = SessionId::from_bits(2);
    assert_eq!(fixture.reader().todos(other.clone()).await.unwrap()[0].id, TodoId::from_bits(2));
    fixture.write(PurgeSession { id: other.clone(), by: ann(), at: NOW }).await.unwrap();
    let gone = fixture.reader().todos(other).await;
    assert!(matches!(gone, Err(StoreError::NotFound { what: "session" })));
    assert_eq!(fixture.refusal(writing(2, vec![])).await.0, ErrorCode::NotFound);
    assert_eq!(fixture.reader().todos(session_id()).await.unwrap().len(), 1);
}
