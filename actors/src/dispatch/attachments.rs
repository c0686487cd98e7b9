//! Files that go with messages: as they are named with a new one, and what they held, as whoever may see the
//! message gets it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use iris_auth::AccessClaims;
use iris_protocol::limits::ATTACHMENTS_MAX;
use iris_protocol::{
    ApiError, AttachmentPart, Command, ErrorCode, MessageAttachment, MessageId, Operation, Part,
    ProjectId, SentAttachment, SessionId, UserId,
};
use iris_store::project::StoredAttachment;

use super::bodies::Held;
use super::files::FilePart;
use super::outputs::piece_within;
use super::{Done, Grant, check_name, stored};
use crate::Node;
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::session::Attached;

/// A file that went with a message and may be read.
pub struct AttachmentDownload {
    /// As it is part of the message.
    pub part: AttachmentPart,
    node: Node,
    project_id: ProjectId,
    user_id: UserId,
}

impl AttachmentDownload {
    /// What it held. What comes with it is room for the answer, to be kept until that is sent.
    ///
    /// # Errors
    /// `OVERLOADED` when too much is being sent and read; `PROJECT_CORRUPT` where it is damaged.
    pub async fn bytes(self) -> Result<(Vec<u8>, Held), ApiError> {
        let held = self.node.bodies.hold(&self.user_id, self.part.size)?;
        let ask = OwnerAsk::ReadAttachment { hash: self.part.hash };
        let answer = self.node.ask_owner(&self.project_id, &self.user_id, ask, None).await?;
        let OwnerAnswer::FilePart(FilePart { bytes }) = answer else { return Err(mismatch()) };
        Ok((bytes, held))
    }
}

/// Which file is asked for, and by whom.
#[derive(Debug, Clone)]
pub struct AttachmentAsk {
    /// Who asks; none without credentials.
    pub claims: Option<AccessClaims>,
    /// The project.
    pub project_id: ProjectId,
    /// The session.
    pub session_id: SessionId,
    /// The message.
    pub message_id: MessageId,
    /// Which of its attachments, from 0.
    pub index: u32,
    /// Names the request in logs and errors, when the caller or the transport gave it a name.
    pub request_id: Option<String>,
}

/// Finds a file, for a caller who may `session.message.attachment`.
///
/// # Errors
/// Those of the gate; `NOT_FOUND`.
pub async fn download_attachment(
    node: &Node,
    ask: AttachmentAsk,
) -> Result<AttachmentDownload, ApiError> {
    let AttachmentAsk { claims, project_id, session_id, message_id, index, request_id } = ask;
    let operation = Operation::MessageAttachment;
    let find = async {
        let grant = node.gate(claims.as_ref(), operation, Some(&project_id)).await?;
        let user_id = grant.user_id()?.clone();
        let ask = OwnerAsk::FindAttachment { session_id, message_id, index };
        let answer = node.ask_owner(&project_id, &user_id, ask, None).await?;
        let OwnerAnswer::Attachment(part) = answer else { return Err(mismatch()) };
        Ok(AttachmentDownload { part, node: node.clone(), project_id: project_id.clone(), user_id })
    };
    node.request(request_id, operation, Some(&project_id), find).await
}

/// Finds a file as the owner of the project.
pub(crate) async fn find_attachment_for(
    node: &Node,
    project_id: &ProjectId,
    session_id: SessionId,
    message_id: MessageId,
    index: u32,
) -> Result<AttachmentPart, ApiError> {
    let reader = node.project(project_id).await?.reader;
    let message = reader.message(session_id, message_id).await.map_err(stored)?;
    let message = message.ok_or_else(|| ApiError::not_found("message"))?;
    let mut attachments = message.parts.into_iter().filter_map(|part| match part {
        Part::Attachment(part) => Some(part),
        Part::Text { .. }
        | Part::Reasoning { .. }
        | Part::Tool(_)
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Step { .. } => None,
    });
    attachments.nth(index as usize).ok_or_else(|| ApiError::not_found("attachment"))
}

/// Reads what a file held as the owner of the project.
pub(crate) async fn read_attachment_for(
    node: &Node,
    project_id: &ProjectId,
    hash: String,
) -> Result<FilePart, ApiError> {
    let bytes = node.project(project_id).await?.reader.attached(hash).await.map_err(stored)?;
    Ok(FilePart { bytes })
}

pub(super) async fn piece(
    node: &Node,
    grant: &Grant,
    request: MessageAttachment,
) -> Result<Done, ApiError> {
    let MessageAttachment { session_id, message_id, index, offset, limit } = request;
    let project_id = grant.project_id()?;
    let part = find_attachment_for(node, project_id, session_id, message_id, index).await?;
    let FilePart { bytes } = read_attachment_for(node, project_id, part.hash).await?;
    piece_within(&StoredAttachment { mime_type: part.mime_type, bytes }, offset, limit)
}

/// Whether a command has files of the project go with a message.
pub(super) fn names_files(command: &Command) -> bool {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others say no message")]
    let attachments = match command {
        Command::MessageSend(send) => &send.attachments,
        Command::MessageEdit(edit) => &edit.attachments,
        _ => return false,
    };
    attachments.iter().any(|attachment| attachment.path.is_some())
}

/// What is to go with a message, as far as the request says it.
///
/// # Errors
/// `INVALID_REQUEST` with the reason `invalid_attachment`; `PAYLOAD_TOO_LARGE` for too many.
pub(super) fn attached(attachments: Vec<SentAttachment>) -> Result<Vec<Attached>, ApiError> {
    if attachments.len() > ATTACHMENTS_MAX {
        let message = format!("a message has at most {ATTACHMENTS_MAX} attachments");
        let error = ApiError::new(ErrorCode::PayloadTooLarge, message);
        return Err(error.reason("too_many_attachments"));
    }
    attachments.into_iter().map(one).collect()
}

fn one(new: SentAttachment) -> Result<Attached, ApiError> {
    match new {
        SentAttachment { path: Some(path), version, name: None, data: None } => {
            Ok(Attached::File { path, version })
        }
        SentAttachment { path: None, version: None, name: Some(name), data: Some(data) } => {
            check_name("name", &name)?;
            let bytes = STANDARD.decode(data).map_err(|_| invalid("`data` is not base64"))?;
            Ok(Attached::Data { name, bytes })
        }
        SentAttachment { .. } => Err(invalid(
            "an attachment has either `path` and perhaps `version`, or `name` and `data`",
        )),
    }
}

fn invalid(problem: &str) -> ApiError {
    ApiError::invalid(problem).reason("invalid_attachment")
}
