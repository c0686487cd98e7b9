//! Joining and leaving rooms, and being sent away from them.

use iris_client::{ClientError, ConnectOptions, Socket};
use iris_protocol::{
    ErrorCode, Event, MemberAdd, MemberRemove, MemberUpdate, PresenceList, PresenceUpdate,
    ProjectId, Role, Room, RoomRequest, RoomStatus, SessionId, SessionUpdate, Subscribe,
    TypingStart, TypingStop, Unsubscribe,
};

use super::delete_project;
use crate::player::{Player, Trouble};

pub(super) async fn rooms(player: &Player<'_>) {
    let project = player.project().await;
    let session = player.session(&project).await;
    let room = Room::Session(session.clone()).to_string();
    let visit = async || {
        let socket = player.person.client.connect(&ConnectOptions::default()).await?;
        subscribe(&socket, &project, &room).await?;
        be_present(&socket, &project, &session).await?;
        let title = Some("heard".to_owned());
        let session_id = session.clone();
        let request = SessionUpdate { session_id, title, agent: None, model: None, mode: None };
        socket.call(Some(&project), request).await?;
        while !matches!(socket.next_event().await?.event, Event::SessionUpdated { .. }) {}
        socket.call(Some(&project), Unsubscribe { rooms: vec![room.clone()] }).await?;
        Ok(())
    };
    player.insist("visit", visit).await;
    let (client, user_id) = (&player.person.client, || player.friend.id().clone());
    for role in [Role::Viewer, Role::Member] {
        let add = async || {
            let request = MemberAdd { user_id: Some(user_id()), email: None, role: Role::Viewer };
            match client.call(Some(&project), request).await {
                // From an attempt before.
                Err(ClientError::Api(error)) if error.code == ErrorCode::Conflict => Ok(()),
                Err(error) => Err(error.into()),
                Ok(_) => Ok(()),
            }
        };
        let update = async || {
            let request = MemberUpdate { user_id: user_id(), role };
            Ok(client.call(Some(&project), request).await?)
        };
        let sent_away = async || {
            add().await?;
            let socket = player.friend.client.connect(&ConnectOptions::default()).await?;
            subscribe(&socket, &project, &room).await?;
            client.call(Some(&project), MemberRemove { user_id: user_id() }).await?;
            while !matches!(socket.next_event().await?.event, Event::RoomLeft { .. }) {}
            Ok(())
        };
        player.insist("member.add", add).await;
        player.insist("member.update", update).await;
        player.insist("member.remove", sent_away).await;
    }
    delete_project(player, &project).await;
}

pub(super) async fn subscribe(
    socket: &Socket,
    project: &ProjectId,
    room: &str,
) -> Result<(), Trouble> {
    let request =
        Subscribe { rooms: vec![RoomRequest::Live(room.to_owned())], deltas: None, presence: None };
    let joined = socket.call(Some(project), request).await?.payload.rooms.remove(0);
    if let Some(code) = joined.code {
        return Err(Trouble::Refused(code.into()));
    }
    assert_eq!(joined.status, RoomStatus::Live);
    Ok(())
}

async fn be_present(
    socket: &Socket,
    project: &ProjectId,
    session: &SessionId,
) -> Result<(), Trouble> {
    let session_id = || session.clone();
    let update = PresenceUpdate { session_id: Some(session_id()), status: None };
    socket.call(Some(project), update).await?;
    socket.call(Some(project), PresenceList {}).await?;
    socket.call(Some(project), TypingStart { session_id: session_id() }).await?;
    socket.call(Some(project), TypingStop { session_id: session_id() }).await?;
    Ok(())
}
