//! Somebody who hears everything by event streams, reads now and then, and goes on from the last id.

use iris_protocol::{EventFrame, Position, ProjectId, Room};
use iris_testkit::{EventStream, Person, Told};

pub(super) struct Streamer {
    stream: Option<EventStream>,
    epoch: String,
    /// Before the first event, and the last one.
    pub(super) began_at: u64,
    last: u64,
    /// Every durable one since.
    pub(super) events: Vec<EventFrame>,
}

impl Streamer {
    /// Connects when it is to hear something.
    pub(super) fn since(at: Position) -> Self {
        let Position { epoch, seq } = at;
        Self { stream: None, epoch, began_at: seq, last: seq, events: Vec::new() }
    }

    /// Its connection ends.
    pub(super) fn go(&mut self) {
        self.stream = None;
    }

    /// Hears everything up to an event, through the ends of its streams.
    pub(super) async fn hear(
        &mut self,
        person: &Person,
        (url, project): (&str, &ProjectId),
        rooms: &[Room],
        head: u64,
    ) {
        while self.last < head {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                none => {
                    let rooms: Vec<String> = rooms.iter().map(ToString::to_string).collect();
                    let rooms = rooms.join(",");
                    let path = format!("/v1/projects/{project}/events?deltas=false&rooms={rooms}");
                    let id = format!("{}.{}", self.epoch, self.last);
                    let id = [("last-event-id", id.as_str())];
                    let opened = EventStream::open(url, &path, Some(person.token()), &id).await;
                    none.insert(opened.unwrap())
                }
            };
            match stream.next().await {
                Told::Event { id: Some(_), data, .. } => {
                    let frame: EventFrame = serde_json::from_value(data).unwrap();
                    self.last = frame.meta.seq.unwrap();
                    self.events.push(frame);
                }
                Told::Event { name, data, .. } => assert_ne!(name, "room.reset", "{data}"),
                Told::Comment | Told::Retry(_) => {}
                Told::End(_) => self.stream = None,
            }
        }
    }
}
