//! Deciding about a tool call that waits for a person: the first decision counts.

use iris_protocol::{
    Approval, ApprovalState, JudgedAccess, PermissionLayer, Remember, SessionId, ToolCallId,
    ToolState, UserId,
};
use serde_json::Value;

use super::ending::{end_approval, fail_call};
use super::permissions::{self, NewRule};
use super::steps::refuse_final;
use super::{family, queries, records, resuming};
use crate::{Command, StoreError, WhenFull, WriteTx, column};

/// What becomes of a waiting call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It runs.
    Approve(Yes),
    /// It does not.
    Reject {
        /// Why; the model reads it.
        reason: Option<String>,
    },
    /// It does not, because nobody said anything in time.
    Expire,
}

impl Decision {
    /// It runs as it is, this once.
    pub fn yes() -> Self {
        Self::Approve(Yes::default())
    }
}

/// How a waiting call is to run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Yes {
    /// How long it holds.
    pub remember: Remember,
    /// Of the arguments that the user saw; others are refused.
    pub input_hash: Option<String>,
    /// Arguments in place of the model's, and what the rules say of what they touch.
    pub edited: Option<(Value, Vec<JudgedAccess>)>,
    /// What is allowed from now on, where the yes holds for longer than this call.
    pub rules: Vec<NewRule>,
}

/// Decides about a waiting call. Answers the approval as it is then.
///
/// Fails with `NotFound`; `Conflict`: `already_decided`, `input_changed` when other arguments wait than
/// those that the user saw, `too_many_permissions`; `Gone` for an approval that expired or was
/// cancelled, and for a person's decision after its time.
#[derive(Debug, Clone)]
pub struct ResolveApproval {
    /// The session.
    pub session_id: SessionId,
    /// The call that waits.
    pub tool_call_id: ToolCallId,
    /// What becomes of it.
    pub decision: Decision,
    /// The user who decides; none when it expires.
    pub by: Option<UserId>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ResolveApproval {
    type Output = Approval;

    /// A no ends something, a yes begins it.
    fn when_full(&self) -> WhenFull {
        match self.decision {
            Decision::Approve(_) => WhenFull::Refuse,
            Decision::Reject { .. } | Decision::Expire => WhenFull::Allow,
        }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Approval, StoreError> {
        let found = queries::approval(tx.conn(), &self.session_id, &self.tool_call_id)?;
        let mut approval = found.ok_or(StoreError::NotFound { what: "approval" })?;
        self.refuse_unless_pending(&approval)?;
        approval.by.clone_from(&self.by);
        approval.state = match &self.decision {
            Decision::Approve(yes) => {
                yes.fill_in(&mut approval)?;
                ApprovalState::Approved
            }
            Decision::Reject { reason } => {
                approval.reason.clone_from(reason);
                ApprovalState::Rejected
            }
            Decision::Expire => ApprovalState::Expired,
        };
        self.decide_call(tx, &approval)?;
        end_approval(tx, &approval, self.at)?;
        self.remember(tx, &approval)?;
        let (session_id, run_id) = (&approval.session_id, &approval.run_id);
        resuming::go_on_when_settled(tx, session_id, run_id, self.at, self.by.as_ref())?;
        Ok(approval)
    }
}

impl Yes {
    /// Writes into the approval what was decided.
    fn fill_in(&self, approval: &mut Approval) -> Result<(), StoreError> {
        if self.input_hash.as_ref().is_some_and(|seen| *seen != approval.input_hash) {
            let message = "other arguments wait than those that were seen";
            return Err(StoreError::conflict("input_changed", message));
        }
        if !approval.options.contains(&self.remember) {
            let message = "what the call touches cannot be remembered that way";
            return Err(StoreError::conflict("not_rememberable", message));
        }
        approval.remember = Some(self.remember);
        if let Some((input, accesses)) = &self.edited {
            approval.input_hash = column::hash_of(&column::to_json(input)?);
            approval.original_input = Some(std::mem::replace(&mut approval.input, input.clone()));
            approval.accesses.clone_from(accesses);
        }
        Ok(())
    }
}

impl ResolveApproval {
    fn refuse_unless_pending(&self, approval: &Approval) -> Result<(), StoreError> {
        let is_late = self.decision != Decision::Expire && self.at > approval.expires_at;
        match approval.state {
            ApprovalState::Pending if !is_late => Ok(()),
            ApprovalState::Pending | ApprovalState::Expired | ApprovalState::Cancelled => {
                Err(StoreError::Gone { what: "approval" })
            }
            ApprovalState::Approved | ApprovalState::Rejected => {
                Err(StoreError::conflict("already_decided", "somebody decided already"))
            }
        }
    }

    /// Lets the call run, or gives it its one result.
    fn decide_call(&self, tx: &mut WriteTx<'_>, approval: &Approval) -> Result<(), StoreError> {
        let message = queries::bare_message(tx.conn(), &self.session_id, &approval.message_id)?;
        let message = message.ok_or(StoreError::NotFound { what: "message" })?;
        let mut call = queries::existing_call(tx.conn(), &message.id, &self.tool_call_id)?;
        refuse_final(&call)?;
        let error = match &self.decision {
            Decision::Approve(_) => {
                call.input.clone_from(&approval.input);
                call.state = ToolState::Running;
                call.started_at = Some(self.at);
                return records::save_call(tx.conn(), &call);
            }
            Decision::Reject { reason: None } => "the user rejected this call".to_owned(),
            Decision::Reject { reason: Some(reason) } => {
                format!("the user rejected this call: {reason}")
            }
            Decision::Expire => "nobody approved this call in time".to_owned(),
        };
        let by = self.by.as_ref();
        fail_call(tx, &message, &mut call, ToolState::Denied, error, self.at, by)
    }

    /// Makes the rules of a yes that holds for longer.
    fn remember(&self, tx: &mut WriteTx<'_>, approval: &Approval) -> Result<(), StoreError> {
        let (Decision::Approve(yes), Some(by)) = (&self.decision, &self.by) else { return Ok(()) };
        let session_id = match yes.remember {
            Remember::Once => return Ok(()),
            // What is said of a sub-agent's call is said of the conversation that it belongs to.
            Remember::Session => {
                let above = family::above(tx.conn(), &approval.session_id)?;
                Some(above.into_iter().last().unwrap_or_else(|| approval.session_id.clone()))
            }
            Remember::Project => None,
        };
        for rule in &yes.rules {
            let layer = PermissionLayer::Remembered;
            permissions::add(tx, rule.clone(), layer, session_id.as_ref(), by, self.at)?;
        }
        Ok(())
    }
}
