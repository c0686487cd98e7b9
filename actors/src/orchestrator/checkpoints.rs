//! Keeping streaming text before its step is recorded, so that it outlives the process.
//!
//! Nothing waits for a checkpoint and no run fails for one: at most one is on its way, and what comes
//! meanwhile, or could not be kept, is part of the next.

use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{PartId, StreamKind};
use iris_store::project::{CheckpointText, TextChunk};
use iris_store::{CrashPoint, StoreError, WriteContext, crash_point};

use super::Orchestrator;
use crate::write;

/// How long text waits for its checkpoint at most.
const CHECKPOINT_AFTER: Duration = Duration::from_millis(500);
/// How many bytes of a part are reason enough for a checkpoint.
const CHECKPOINT_BYTES: usize = 4 * 1024;
/// How long a checkpoint that failed waits for another try.
const CHECKPOINT_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The text of one model call that is not kept yet. Bounded by what a step may say.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// In order of appearance, one piece a part.
    waiting: Vec<TextChunk>,
    /// What is on its way to the store.
    writing: Vec<TextChunk>,
    /// Writes what waits when its time has come.
    timer: Option<SpawnHandle>,
    /// Rises with each step: what was on its way for an earlier one is of no interest.
    step: u64,
}

impl Checkpoints {
    /// Takes a piece; says whether there is enough for a checkpoint.
    fn take(&mut self, piece: TextChunk) -> bool {
        let Some(part) = self.waiting.iter_mut().find(|part| part.part_id == piece.part_id) else {
            let is_enough = piece.text.len() >= CHECKPOINT_BYTES;
            self.waiting.push(piece);
            return is_enough;
        };
        part.text.push_str(&piece.text);
        part.text.len() >= CHECKPOINT_BYTES
    }

    /// Takes back what could not be kept; what came meanwhile continues it.
    fn take_back(&mut self) {
        let since = std::mem::replace(&mut self.waiting, std::mem::take(&mut self.writing));
        for piece in since {
            self.take(piece);
        }
    }
}

impl Orchestrator {
    /// Sees to it that a piece of text is kept soon.
    pub(super) fn checkpoint_soon(&mut self, piece: TextChunk, ctx: &mut Context<Self>) {
        let is_enough = self.checkpoints.take(piece);
        if !self.checkpoints.writing.is_empty() {
            return;
        }
        if is_enough {
            self.checkpoint(ctx);
        } else if self.checkpoints.timer.is_none() {
            self.checkpoint_after(CHECKPOINT_AFTER, ctx);
        }
    }

    /// Forgets what waits: the step that it is of is about to be recorded.
    pub(super) fn drop_checkpoints(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.checkpoints.timer.take() {
            ctx.cancel_future(timer);
        }
        self.checkpoints = Checkpoints { step: self.checkpoints.step + 1, ..Default::default() };
    }

    fn checkpoint_after(&mut self, delay: Duration, ctx: &mut Context<Self>) {
        let timer = ctx.run_later(delay, |orchestrator, ctx| {
            orchestrator.checkpoints.timer = None;
            orchestrator.checkpoint(ctx);
        });
        self.checkpoints.timer = Some(timer);
    }

    fn checkpoint(&mut self, ctx: &mut Context<Self>) {
        if let Some(timer) = self.checkpoints.timer.take() {
            ctx.cancel_future(timer);
        }
        let chunks = std::mem::take(&mut self.checkpoints.waiting);
        self.checkpoints.writing.clone_from(&chunks);
        let command = CheckpointText {
            session_id: self.session_id(),
            run_id: self.run_id(),
            message_id: self.assignment.answer_id.clone(),
            chunks,
        };
        let step = self.checkpoints.step;
        let project = &self.assignment.place.project.address;
        let kept = write(project, command, WriteContext::default()).into_actor(self);
        ctx.spawn(kept.map(move |kept, orchestrator, ctx| {
            let kept = kept.map(drop);
            if kept.is_ok() {
                crash_point(CrashPoint::Checkpoint);
            }
            if orchestrator.checkpoints.step == step {
                orchestrator.checkpointed(kept, ctx);
            }
        }));
    }

    fn checkpointed(&mut self, kept: Result<(), StoreError>, ctx: &mut Context<Self>) {
        if let Err(error) = kept {
            let path = self.vitals.path();
            tracing::warn!(actor.path = %path, %error, "streaming text could not be kept");
            self.checkpoints.take_back();
            self.checkpoint_after(CHECKPOINT_AGAIN_AFTER, ctx);
            return;
        }
        self.checkpoints.writing.clear();
        let waiting = &self.checkpoints.waiting;
        if waiting.iter().any(|part| part.text.len() >= CHECKPOINT_BYTES) {
            self.checkpoint(ctx);
        } else if !waiting.is_empty() {
            self.checkpoint_after(CHECKPOINT_AFTER, ctx);
        }
    }
}

/// A piece of text as it is shown.
pub(super) fn chunk(part_id: &PartId, kind: StreamKind, offset: u64, text: &str) -> TextChunk {
    TextChunk { part_id: part_id.clone(), kind, offset, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(part: u128, offset: u64, text: &str) -> TextChunk {
        chunk(&PartId::from_bits(part), StreamKind::Text, offset, text)
    }

    #[test]
    fn pieces_of_a_part_become_one_until_they_are_enough() {
        let mut checkpoints = Checkpoints::default();
        assert!(!checkpoints.take(piece(1, 0, "a")));
        assert!(!checkpoints.take(piece(2, 7, "x")));
        assert!(!checkpoints.take(piece(1, 1, "b")));
        assert_eq!(checkpoints.waiting, [piece(1, 0, "ab"), piece(2, 7, "x")]);
        assert!(checkpoints.take(piece(1, 2, &"c".repeat(CHECKPOINT_BYTES - 2))));
        assert!(checkpoints.take(piece(3, 0, &"d".repeat(CHECKPOINT_BYTES))));
    }

    #[test]
    fn what_could_not_be_kept_comes_before_what_came_since() {
        let mut checkpoints = Checkpoints { writing: vec![piece(1, 3, "a")], ..Default::default() };
        checkpoints.take(piece(1, 4, "b"));
        checkpoints.take(piece(2, 0, "x"));
        checkpoints.take_back();
        assert_eq!(checkpoints.waiting, [piece(1, 3, "ab"), piece(2, 0, "x")]);
        assert_eq!(checkpoints.writing, []);
    }
}
