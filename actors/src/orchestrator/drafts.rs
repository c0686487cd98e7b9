//! Arguments of calls while the model writes them: shown, and never kept, because the call itself has them whole.

use actix::prelude::*;
use iris_agent::Input;
use iris_protocol::{PartId, SnapshotKind};

use super::Orchestrator;

/// The calls that the model writes in one answer.
#[derive(Default)]
pub(super) struct Drafts {
    open: Vec<Draft>,
    /// Of all arguments that were shown.
    bytes: usize,
}

struct Draft {
    /// The provider's id of the call.
    call_id: String,
    part_id: PartId,
    tool_name: String,
    /// Of its arguments that were shown.
    bytes: usize,
}

impl Orchestrator {
    /// Shows that the model begins a call.
    pub(super) fn draft_call(&mut self, call_id: &str, tool_name: String, ctx: &mut Context<Self>) {
        let part_id = PartId::from_bits(self.services().ids.next_bits());
        let draft = Draft { call_id: call_id.to_owned(), part_id, tool_name, bytes: 0 };
        self.drafts.open.push(draft);
        self.show_input(call_id, String::new(), ctx);
    }

    /// Shows more of the arguments of a call, as much of one answer as it may have of text.
    pub(super) fn show_input(&mut self, call_id: &str, piece: String, ctx: &mut Context<Self>) {
        let bytes_max = self.services().settings.turn.step_text_bytes_max;
        let Drafts { open, bytes } = &mut self.drafts;
        let Some(draft) = open.iter_mut().find(|draft| draft.call_id == call_id) else { return };
        let offset = draft.bytes as u64;
        *bytes += piece.len();
        draft.bytes += piece.len();
        if *bytes > bytes_max {
            return;
        }
        let (part_id, tool_name) = (draft.part_id.clone(), Some(draft.tool_name.clone()));
        self.show(part_id, SnapshotKind::ToolInput, tool_name, offset, piece, ctx);
    }

    /// A call as the turn takes it in: the part that was shown becomes the call.
    pub(super) fn drafted(&self, call_id: &str, mut input: Input) -> Input {
        let draft = self.drafts.open.iter().find(|draft| draft.call_id == call_id);
        if let Input::CallArrived { part_id, .. } = &mut input {
            *part_id = draft.map(|draft| draft.part_id.clone());
        }
        input
    }
}
