//! A panic over what goes with a ping.

use std::time::Duration;

use iris_actors::connection::SocketSettings;
use iris_actors::supervision::faults::{Armed, Fault};
use iris_protocol::Room;
use iris_testkit::{AppOptions, Incoming, WireSocket, patiently};
use serde_json::{Value, json};

use crate::aftermath::{mark, told_of_one_panic};
use crate::player::project_path;
use crate::stage::Stage;

fn armed(kind: &'static str, message: &str) -> Armed {
    Armed { kind, message: message.to_owned(), fault: Fault::Panic, times: 1 }
}

/// What this socket hears next of heartbeats: the rooms, or the code of its close.
async fn beat(socket: &mut WireSocket) -> Result<Value, u16> {
    loop {
        match socket.next().await {
            Incoming::Json(mut frame) if frame["type"] == "heartbeat" => {
                return Ok(frame["payload"]["rooms"].take());
            }
            Incoming::Json(_) | Incoming::Binary(_) | Incoming::Pong(_) => {}
            Incoming::Closed { code, .. } => return Err(code),
        }
    }
}

/// A socket that waits for a heartbeat with this room in it.
async fn join(stage: &Stage, project: &str, room: &str) -> WireSocket {
    let mut socket = stage.person.wire().await;
    socket.ask("1", "subscribe", Some(project), json!({ "rooms": [room] })).await;
    let joined = async { while beat(&mut socket).await.unwrap().get(room).is_none() {} };
    patiently("a heartbeat with the room", joined).await;
    socket
}

#[tokio::test]
async fn a_panic_over_a_heartbeat_ends_one_socket_or_those_in_one_project() {
    let sockets = SocketSettings {
        ping_interval: Some(Duration::from_millis(40)),
        pong_timeout: Duration::from_mins(1),
        ..SocketSettings::default()
    };
    let stage = Stage::set(AppOptions { sockets, ..AppOptions::default() }).await;
    let project = stage.person.project("a").await.id;
    let (name, room) = (project.as_str(), Room::Project(project.clone()).to_string());
    let (mut one, mut other) = (join(&stage, name, &room).await, join(&stage, name, &room).await);

    let since = mark(&stage.app);
    stage.app.supervision().faults().arm(armed("connection", "Beat"));
    // One of them ends, and the other one hears of its rooms as before.
    let (first, second) = tokio::join!(until_closed(&mut one), until_closed(&mut other));
    told_of_one_panic(&stage.app, since, "connection", "Beat").await;
    let mut spared = match (first, second) {
        (Some(1011), None) => other,
        (None, Some(1011)) => one,
        ended => panic!("{ended:?}"),
    };
    assert!(beat(&mut spared).await.unwrap().get(&room).is_some());

    // Somebody in another project notices nothing when the owner of this one goes.
    let elsewhere = stage.person.project("b").await.id;
    let another = Room::Project(elsewhere.clone()).to_string();
    let mut bystander = join(&stage, elsewhere.as_str(), &another).await;
    let since = mark(&stage.app);
    let path = project_path(&project);
    stage.app.supervision().faults().arm_under(&path, armed("project", "RoomHeads"));
    assert_eq!(spared.close_code().await, 1011);
    told_of_one_panic(&stage.app, since, "project", "RoomHeads").await;
    join(&stage, name, &room).await;
    assert!(beat(&mut bystander).await.unwrap().get(&another).is_some());
}

/// The code with which a socket ends while three heartbeats would come, if it does.
async fn until_closed(socket: &mut WireSocket) -> Option<u16> {
    for _ in 0..3 {
        if let Err(code) = beat(socket).await {
            return Some(code);
        }
    }
    None
}
