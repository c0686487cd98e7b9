//! From the node that holds a connection to the node that owns a project. Today they are the same
//! one; nothing here assumes it: whatever passes is plain data, and frames for the connection come
//! back the same way (docs/decisions/0008).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use iris_protocol::{
    ApiError, AttachmentPart, BackupId, Command, ConnectionId, ErrorCode, File, MessageId,
    Operation, PartId, Position, ProjectId, Room, RoomOutcome, RoomRequest, SessionId, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Node;
use crate::connection::Outbound;
use crate::directory::FindProject;
use crate::dispatch::{
    BackupPart, Done, FileBytes, FilePart, broken, find_attachment_for, perform_for,
    read_attachment_for, read_file_for, read_file_part_for, read_part_for, write_file_for,
};
use crate::origin::Origin;
use crate::project::{Follower, JoinRooms, LeaveRooms, RoomHeads, SendSnapshots};
use crate::supervision::{AskError, Panicked, current_request, guarded, in_request};

/// What is asked of the owner of a project. The rights were checked by whoever asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToOwner {
    /// The project.
    pub project_id: ProjectId,
    /// For whom.
    pub user_id: UserId,
    /// The request that causes it.
    pub request_id: Option<String>,
    /// What.
    pub ask: OwnerAsk,
}

/// The kinds of questions to an owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OwnerAsk {
    /// Run an operation in the project.
    Perform {
        /// Name of the operation.
        operation: String,
        /// Its request.
        payload: Value,
        /// Makes a repeat answer what the first one did.
        idempotency_key: Option<String>,
        /// The connection that it came over, if it came over one.
        connection_id: Option<ConnectionId>,
        /// Where the request comes from, for the audit.
        origin: Origin,
    },
    /// Read the beginning of a file.
    ReadFile {
        /// Which.
        path: String,
        /// Which version; what is on the disk where none is named.
        version: Option<u64>,
    },
    /// Read a part of a file.
    ReadFilePart {
        /// Which.
        path: String,
        /// From where.
        offset: u64,
    },
    /// Find a file that goes with a message.
    FindAttachment {
        /// The session.
        session_id: SessionId,
        /// The message.
        message_id: MessageId,
        /// Which of its attachments, from 0.
        index: u32,
    },
    /// Read what such a file held.
    ReadAttachment {
        /// SHA-256 of it.
        hash: String,
    },
    /// Write a file whole.
    WriteFile {
        /// Which.
        path: String,
        /// All of it.
        #[serde(with = "base64_bytes")]
        bytes: Vec<u8>,
        /// The version that the caller knows.
        version: Option<u64>,
        /// Makes a repeat answer what the first one did.
        idempotency_key: Option<String>,
    },
    /// Read a part of the archive of a backup.
    ReadBackup {
        /// Which.
        backup_id: BackupId,
        /// From where.
        offset: u64,
        /// How much at most.
        bytes_max: u64,
    },
    /// Join rooms, one after the other. Their frames come back through the way of the connection.
    Join {
        /// As the client named them, with its positions.
        rooms: Vec<RoomRequest>,
        /// Whether it wants streaming text.
        deltas: bool,
        /// Whether it wants to know who is present.
        presence: bool,
        /// The connection.
        connection_id: ConnectionId,
        /// The name of its user that others see.
        username: String,
    },
    /// Name the last event of each of these rooms that a connection hears. The answer comes behind the
    /// frames that were sent to the connection before.
    Heads {
        /// The connection.
        connection_id: ConnectionId,
        /// Which.
        rooms: Vec<Room>,
    },
    /// Send snapshots of these parts to a connection, of those that stream in its rooms. The answer
    /// comes behind them.
    Snapshots {
        /// The connection.
        connection_id: ConnectionId,
        /// Which.
        parts: Vec<PartId>,
    },
    /// Leave rooms; all of them when none is named.
    Leave {
        /// The connection.
        connection_id: ConnectionId,
        /// Which.
        rooms: Option<Vec<Room>>,
        /// Whether it may come back.
        has_right: bool,
    },
}

/// What an owner answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OwnerAnswer {
    /// To `Perform`.
    Done(Done),
    /// To `ReadFile`.
    File(FileBytes),
    /// To `ReadFilePart` and `ReadAttachment`.
    FilePart(FilePart),
    /// To `FindAttachment`.
    Attachment(AttachmentPart),
    /// To `WriteFile`: the file, and whether it was a repeat.
    Written(File, bool),
    /// To `ReadBackup`.
    BackupPart(BackupPart),
    /// To `Join`: what became of each room, in their order.
    Joined(Vec<RoomOutcome>),
    /// To `Heads`: by the name of the room.
    Heads(BTreeMap<String, Position>),
    /// To `Snapshots`: how many were sent.
    Snapshots(usize),
    /// To `Leave`.
    Left,
}

/// A way to the owners of projects that live on other nodes.
pub trait Hop: Send + Sync {
    /// Carries a question to the owner and its answer back. Frames of rooms go to `outbound` from the
    /// moment of a `Join` on.
    fn ask(
        &self,
        question: ToOwner,
        outbound: Option<Arc<Outbound>>,
    ) -> BoxFuture<'static, Result<OwnerAnswer, ApiError>>;
}

impl Node {
    /// Asks the owner of a project, wherever it is.
    pub(crate) async fn ask_owner(
        &self,
        project_id: &ProjectId,
        user_id: &UserId,
        ask: OwnerAsk,
        outbound: Option<Arc<Outbound>>,
    ) -> Result<OwnerAnswer, ApiError> {
        let question = ToOwner {
            project_id: project_id.clone(),
            user_id: user_id.clone(),
            request_id: current_request().map(|request| request.to_string()),
            ask,
        };
        match &self.hop {
            None => Box::pin(self.answer_question(question, outbound)).await,
            Some(hop) => Box::pin(hop.ask(question, outbound)).await,
        }
    }

    /// Answers the question of another node, as the owner of the project.
    ///
    /// # Errors
    /// Those of the operation; `UNKNOWN_OPERATION` for one that this version does not know; `INTERNAL`
    /// when the operation panics.
    pub async fn answer_as_owner(
        &self,
        question: ToOwner,
        outbound: Option<Arc<Outbound>>,
    ) -> Result<OwnerAnswer, ApiError> {
        let request = question.request_id.clone().unwrap_or_default();
        let answer = self.answer_question(question, outbound);
        let answer = in_request(request.into(), guarded(&self.top, "ToOwner", answer));
        answer.await.unwrap_or_else(|Panicked| Err(broken()))
    }

    async fn answer_question(
        &self,
        question: ToOwner,
        outbound: Option<Arc<Outbound>>,
    ) -> Result<OwnerAnswer, ApiError> {
        let ToOwner { project_id, user_id, request_id: _, ask } = question;
        match ask {
            OwnerAsk::Perform { operation, payload, idempotency_key, connection_id, origin } => {
                let _under_way = self.services.origins.enter(&user_id, origin);
                let operation = Operation::from_name(&operation)
                    .ok_or_else(|| ApiError::from(ErrorCode::UnknownOperation))?;
                let command = Command::decode(operation, payload)?;
                let done =
                    perform_for(self, user_id, project_id, command, idempotency_key, connection_id);
                done.await.map(OwnerAnswer::Done)
            }
            OwnerAsk::ReadFile { path, version } => {
                let read = read_file_for(self, user_id, project_id, path, version).await;
                read.map(OwnerAnswer::File)
            }
            OwnerAsk::ReadFilePart { path, offset } => {
                let part = read_file_part_for(self, &project_id, path, offset).await;
                part.map(OwnerAnswer::FilePart)
            }
            OwnerAsk::FindAttachment { session_id, message_id, index } => {
                let find = find_attachment_for(self, &project_id, session_id, message_id, index);
                find.await.map(OwnerAnswer::Attachment)
            }
            OwnerAsk::ReadAttachment { hash } => {
                let part = read_attachment_for(self, &project_id, hash).await;
                part.map(OwnerAnswer::FilePart)
            }
            OwnerAsk::WriteFile { path, bytes, version, idempotency_key } => {
                let put = (path, bytes, version);
                let written = write_file_for(self, user_id, project_id, put, idempotency_key).await;
                written.map(|(file, replayed)| OwnerAnswer::Written(file, replayed))
            }
            OwnerAsk::ReadBackup { backup_id, offset, bytes_max } => {
                let part = read_part_for(self, project_id, backup_id, offset, bytes_max).await;
                part.map(OwnerAnswer::BackupPart)
            }
            OwnerAsk::Join { rooms, deltas, presence, connection_id, username } => {
                let outbound = outbound.ok_or_else(|| ApiError::from(ErrorCode::Internal))?;
                let project = self.project(&project_id).await?;
                let by = Follower { connection_id, user_id, username, deltas, presence, outbound };
                let outcomes = project.address.ask(JoinRooms { rooms, by }).await;
                outcomes.map(OwnerAnswer::Joined).map_err(AskError::to_api)
            }
            OwnerAsk::Heads { connection_id, rooms } => {
                // One that is not open is heard by nobody.
                let project = self.directory.urge(FindProject(project_id)).await;
                let Ok(Some(project)) = project else {
                    return Ok(OwnerAnswer::Heads(BTreeMap::new()));
                };
                let heads = project.address.ask(RoomHeads { connection_id, rooms }).await;
                heads.map(OwnerAnswer::Heads).map_err(AskError::to_api)
            }
            OwnerAsk::Snapshots { connection_id, parts } => {
                let project = self.directory.urge(FindProject(project_id)).await;
                let Ok(Some(project)) = project else { return Ok(OwnerAnswer::Snapshots(0)) };
                let sent = project.address.ask(SendSnapshots { connection_id, parts }).await;
                sent.map(OwnerAnswer::Snapshots).map_err(AskError::to_api)
            }
            OwnerAsk::Leave { connection_id, rooms, has_right } => {
                // One that is not open has no rooms to leave.
                if let Ok(Some(project)) = self.directory.urge(FindProject(project_id)).await {
                    project.address.tell(LeaveRooms { connection_id, rooms, has_right });
                }
                Ok(OwnerAnswer::Left)
            }
        }
    }
}

/// The answer to another question than the one that was asked.
pub(crate) fn mismatch() -> ApiError {
    tracing::error!("the owner of a project answered another question");
    ApiError::new(ErrorCode::Internal, "internal error")
}

/// Bytes as base64 (RFC 4648), so that a file fits into JSON.
pub(crate) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(de::Error::custom)
    }
}
