//! Pieces of an answer on their way to the project: one at a time. What comes before that took the last one is
//! joined, so that a project that is behind is told less often, and its mailbox has room for what people want.

use actix::prelude::*;
use iris_protocol::{PartId, SnapshotKind};

use super::Orchestrator;
use crate::project::Stream;

/// Those of one answer. What waits is bounded by what a step may say.
#[derive(Default)]
pub(super) struct Pieces {
    /// Whether one is on its way.
    is_under_way: bool,
    /// What came since, in order.
    waiting: Vec<Stream>,
}

impl Pieces {
    /// Adds a piece to those that wait; one that goes on where the last one ends becomes part of it.
    fn wait(&mut self, piece: Stream) {
        match self.waiting.last_mut() {
            Some(last)
                if last.part_id == piece.part_id
                    && last.offset + last.text.len() as u64 == piece.offset =>
            {
                last.text.push_str(&piece.text);
            }
            _ => self.waiting.push(piece),
        }
    }
}

impl Orchestrator {
    /// Shows more of a part.
    pub(super) fn show(
        &mut self,
        part_id: PartId,
        kind: SnapshotKind,
        tool_name: Option<String>,
        offset: u64,
        text: String,
        ctx: &mut Context<Self>,
    ) {
        let (session_id, message_id) = (self.session_id(), self.assignment.answer_id.clone());
        let piece = Stream { session_id, message_id, part_id, kind, tool_name, offset, text };
        self.pieces.wait(piece);
        if !self.pieces.is_under_way {
            self.send_pieces(ctx);
        }
    }

    /// Sends what waits, and hears when the last of it is taken.
    fn send_pieces(&mut self, ctx: &mut Context<Self>) {
        let Some(last) = self.pieces.waiting.pop() else { return };
        self.tell_pieces();
        self.pieces.is_under_way = true;
        let taken = self.assignment.place.project.address.urge(last).into_actor(self);
        ctx.spawn(taken.map(|_, orchestrator, ctx| {
            orchestrator.pieces.is_under_way = false;
            orchestrator.send_pieces(ctx);
        }));
    }

    /// Sends what waits before something is recorded that comes after it.
    pub(super) fn tell_pieces(&mut self) {
        for piece in self.pieces.waiting.drain(..) {
            self.assignment.place.project.address.tell(piece);
        }
    }

    /// Forgets what waits: it is no part of the answer.
    pub(super) fn drop_pieces(&mut self) {
        self.pieces.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::{MessageId, SessionId};

    use super::*;

    #[test]
    fn what_waits_is_joined_part_by_part() {
        let piece = |part: u128, offset: u64, text: &str| Stream {
            session_id: SessionId::from_bits(1),
            message_id: MessageId::from_bits(1),
            part_id: PartId::from_bits(part),
            kind: SnapshotKind::Text,
            tool_name: None,
            offset,
            text: text.to_owned(),
        };
        let mut pieces = Pieces::default();
        for (part, offset, text) in
            [(1, 0, "é"), (1, 2, "b"), (2, 0, ""), (2, 0, "c"), (1, 3, "d"), (1, 9, "e")]
        {
            pieces.wait(piece(part, offset, text));
        }
        let waiting: Vec<_> =
            pieces.waiting.iter().map(|it| (it.part_id.clone(), it.offset, &*it.text)).collect();
        let part = PartId::from_bits;
        assert_eq!(
            waiting,
            [(part(1), 0, "éb"), (part(2), 0, "c"), (part(1), 3, "d"), (part(1), 9, "e")]
        );
    }
}
