//! How far people have read sessions: their own business.

use iris_protocol::limits::UNREAD_MAX;
use iris_protocol::{
    ErrorCode, Event, MemberRemove, MessageId, Role, SessionDelete, SessionId, SessionList,
    SessionRead, Unread,
};
use iris_testkit::{Conversation, TestApp, spawn_app};

use crate::refusal;

/// Ann with a session in which she asked and was answered, and bob who may read it.
async fn scene() -> (TestApp, Conversation, Conversation) {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say hello").await;
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    let bob = bob.join(&ann.project, &ann.session).await;
    (app, ann, bob)
}

async fn unread(talk: &Conversation) -> Unread {
    let listed = SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
    let page = talk.call(listed).await.unwrap();
    let place = page.sessions.iter().position(|it| it.id == talk.session).unwrap();
    let unread = talk.person.snapshot(&talk.project, &talk.session).await.unread.unwrap();
    // Both say the same, in the same order.
    assert_eq!(page.unread[place], unread);
    unread
}

async fn messages(talk: &Conversation) -> Vec<MessageId> {
    let snapshot = talk.person.snapshot(&talk.project, &talk.session).await;
    snapshot.messages.into_iter().map(|message| message.id).collect()
}

async fn read(talk: &Conversation, message: &MessageId) -> Unread {
    let (session_id, message_id) = (talk.session.clone(), message.clone());
    talk.call(SessionRead { session_id, message_id }).await.unwrap().unread
}

#[tokio::test]
async fn what_others_and_agents_say_is_unread_until_it_is_read_and_own_words_are_not() {
    let (app, mut ann, bob) = scene().await;
    let [asked, answered] = <[MessageId; 2]>::try_from(messages(&ann).await).unwrap();
    // Her own message does not count.
    let of_ann = unread(&ann).await;
    assert_eq!((of_ann.count, of_ann.first_message_id), (1, Some(answered.clone())));
    let of_bob = unread(&bob).await;
    assert_eq!((of_bob.count, of_bob.first_message_id), (2, Some(asked.clone())));
    assert_eq!(of_bob.read_message_id, None);

    let after = read(&bob, &asked).await;
    assert_eq!((after.count, after.first_message_id), (1, Some(answered.clone())));
    assert_eq!(read(&bob, &answered).await.count, 0);
    // Never backwards.
    let again = read(&bob, &asked).await;
    assert_eq!((again.count, again.read_message_id), (0, Some(answered.clone())));
    // Nothing of it is ann's.
    assert_eq!(unread(&ann).await.count, 1);
    ann.ask("say more").await;
    assert_eq!((unread(&bob).await.count, unread(&ann).await.count), (2, 2));

    // It is kept.
    let app = app.restart().await;
    let bob = bob.resume(app.again(&bob.person)).await;
    let kept = unread(&bob).await;
    assert_eq!((kept.count, kept.read_message_id), (2, Some(answered)));
}

#[tokio::test]
async fn only_the_other_connections_of_the_reader_are_told() {
    let (_app, mut ann, bob) = scene().await;
    let other = bob.person.connect().await;
    let last = messages(&ann).await.pop().unwrap();
    read(&bob, &last).await;
    let told = loop {
        let frame = other.next_event().await.unwrap();
        if let Event::SessionUnread { project_id, unread } = frame.event {
            break (project_id, unread.count, unread.read_message_id);
        }
    };
    assert_eq!(told, (ann.project.clone(), 0, Some(last)));
    // Whatever comes next in the rooms of others, that did not.
    ann.ask("say more").await;
    assert!(!ann.names().contains(&"session.unread"), "{:?}", ann.names());
}

#[tokio::test]
async fn who_is_taken_out_has_read_nothing_when_they_come_back() {
    let (app, ann, bob) = scene().await;
    let last = messages(&ann).await.pop().unwrap();
    read(&bob, &last).await;
    let user_id = bob.person.id().clone();
    ann.call(MemberRemove { user_id }).await.unwrap();
    let session_id = bob.session.clone();
    let request = SessionRead { session_id, message_id: last };
    let refused = bob.person.client.call(Some(&bob.project), request).await;
    assert_eq!(refusal(refused).code, ErrorCode::NotFound);
    ann.person.add_member(&ann.project, &bob.person, Role::Viewer).await;
    let bob = app.again(&bob.person).join(&ann.project, &ann.session).await;
    let unread = unread(&bob).await;
    assert_eq!((unread.count, unread.read_message_id), (2, None));
}

#[tokio::test]
async fn a_count_has_an_end_and_only_messages_of_the_session_can_be_read() {
    let (_app, mut ann, bob) = scene().await;
    for _ in 0..UNREAD_MAX / 2 {
        ann.ask("say on").await;
    }
    assert_eq!(unread(&bob).await.count, UNREAD_MAX);
    assert_eq!(unread(&ann).await.count, UNREAD_MAX / 2 + 1);
    let request = |session_id: &SessionId, message_id: MessageId| SessionRead {
        session_id: session_id.clone(),
        message_id,
    };
    let unknown = bob.call(request(&bob.session, MessageId::from_bits(1))).await;
    assert_eq!(refusal(unknown).message, "message not found");
    let other = ann.person.session(&ann.project).await.id;
    let last = messages(&ann).await.pop().unwrap();
    assert_eq!(refusal(bob.call(request(&other, last.clone())).await).message, "message not found");
    read(&bob, &last).await;
    let delete = SessionDelete { session_id: ann.session.clone(), permanent: Some(true) };
    ann.call(delete).await.unwrap();
    let gone = bob.call(request(&bob.session, last)).await;
    assert_eq!(refusal(gone).message, "session not found");
}
