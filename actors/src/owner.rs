//! From the node that holds a connection to the node that owns a project. Today they are the same
//! one; nothing here assumes it: whatever passes is plain data, and frames for the connection come
//! back the same way (docs/decisions/0008).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, LocalBoxFuture};
use iris_protocol::{
    ApiError, AttachmentPart, BackupId, Command, ConnectionId, ErrorCode, File, MessageId,
    Operation, PartId, Position, ProjectId, Room, RoomOutcome, RoomRequest, SessionId, UploadBegin,
    UploadedFile, UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Node;
use crate::connection::Outbound;
use crate::directory::FindProject;
use crate::dispatch::{
    BackupPart, Done, FilePart, FilePut, OpenedFile, ReceivedFile, UploadOpen, UploadPart,
    begin_upload_for, broken, cancel_upload_for, commit_upload_for, find_attachment_for,
    open_file_for, perform_for, place_for, read_attachment_for, read_file_for, read_part_for,
    stage_for, stage_part_for, write_file_for, write_upload_for,
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
    /// Open a file, to read it part by part.
    OpenFile {
        /// Which.
        path: String,
        /// Which version; what is on the disk where none is named.
        version: Option<u64>,
    },
    /// Read a part of a file that is open.
    ReadFile {
        /// Which, as the answer to `OpenFile` names it.
        handle: String,
        /// From where.
        offset: u64,
        /// How much at most.
        bytes_max: u64,
    },
    /// Close a file.
    CloseFile {
        /// Which, as the answer to `OpenFile` names it.
        handle: String,
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
        /// Which, and what it is to hold.
        put: FilePut,
        /// Makes a repeat answer what the first one did.
        idempotency_key: Option<String>,
    },
    /// Begin to receive a file.
    StageFile {
        /// Where it will belong.
        path: String,
        /// Names the form that it is in.
        form: String,
    },
    /// Receive the next part of a file.
    StagePart {
        /// Which file, and the bytes.
        part: UploadPart,
    },
    /// Put files where they belong that were received whole.
    PlaceFiles {
        /// Which.
        files: Vec<ReceivedFile>,
        /// Makes a repeat answer what the first one did.
        idempotency_key: Option<String>,
    },
    /// Give files up that were being received.
    GiveUpFiles {
        /// Which, as the answers to `StageFile` name them.
        ids: Vec<String>,
    },
    /// Begin to receive a file over a socket, or go on with it.
    BeginUpload {
        /// Which.
        begin: UploadBegin,
    },
    /// Receive the next bytes of such a file.
    WriteUpload {
        /// Which, as the answer to `BeginUpload` names it.
        handle: String,
        /// Where they begin.
        offset: u64,
        /// The bytes.
        #[serde(with = "base64_bytes")]
        bytes: Vec<u8>,
    },
    /// Make a version of such a file, which has come whole.
    CommitUpload {
        /// Which, as the answer to `BeginUpload` names it.
        handle: String,
    },
    /// Give such a file up.
    CancelUpload {
        /// Which, as the answer to `BeginUpload` names it.
        handle: String,
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
    /// To `Perform` and `CommitUpload`.
    Done(Done),
    /// To `OpenFile`.
    Opened(OpenedFile),
    /// To `ReadFile` and `ReadAttachment`.
    FilePart(FilePart),
    /// To `CloseFile`.
    Closed,
    /// To `FindAttachment`.
    Attachment(AttachmentPart),
    /// To `WriteFile`: the file, and whether it was a repeat.
    Written(File, bool),
    /// To `StageFile`: names the file from then on.
    Staged(String),
    /// To `StagePart`.
    StagedPart,
    /// To `PlaceFiles`: what became of each, and whether all were repeats.
    Placed(Vec<UploadedFile>, bool),
    /// To `GiveUpFiles` and `CancelUpload`.
    GivenUp,
    /// To `BeginUpload`.
    UploadOpen(UploadOpen),
    /// To `WriteUpload`: how many bytes are on the disk.
    Received(u64),
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
    pub(crate) fn ask_owner<'a>(
        &'a self,
        project_id: &'a ProjectId,
        user_id: &'a UserId,
        ask: OwnerAsk,
        outbound: Option<Arc<Outbound>>,
    ) -> LocalBoxFuture<'a, Result<OwnerAnswer, ApiError>> {
        Box::pin(async move {
            let question = ToOwner {
                project_id: project_id.clone(),
                user_id: user_id.clone(),
                request_id: current_request().map(|request| request.to_string()),
                ask,
            };
            match &self.hop {
                None => self.answer_question(question, outbound).await,
                Some(hop) => hop.ask(question, outbound).await,
            }
        })
    }

    /// Answers the question of another node, as the owner of the project.
    ///
    /// # Errors
    /// Those of the operation; `UNKNOWN_OPERATION` for one that this version does not know; `INTERNAL`
    /// when the operation panics.
    pub fn answer_as_owner(
        &self,
        question: ToOwner,
        outbound: Option<Arc<Outbound>>,
    ) -> LocalBoxFuture<'_, Result<OwnerAnswer, ApiError>> {
        Box::pin(async move {
            let request = question.request_id.clone().unwrap_or_default();
            let answer = self.answer_question(question, outbound);
            let answer = in_request(request.into(), guarded(&self.top, "ToOwner", answer));
            answer.await.unwrap_or_else(|Panicked| Err(broken()))
        })
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
            OwnerAsk::OpenFile { path, version } => {
                let open = open_file_for(self, user_id, project_id, path, version);
                open.await.map(OwnerAnswer::Opened)
            }
            OwnerAsk::ReadFile { handle, offset, bytes_max } => {
                let part = read_file_for(self, &user_id, &handle, offset, bytes_max).await;
                part.map(OwnerAnswer::FilePart)
            }
            OwnerAsk::CloseFile { handle } => {
                self.open_files.close(&user_id, &handle);
                Ok(OwnerAnswer::Closed)
            }
            OwnerAsk::FindAttachment { session_id, message_id, index } => {
                let find = find_attachment_for(self, &project_id, session_id, message_id, index);
                find.await.map(OwnerAnswer::Attachment)
            }
            OwnerAsk::ReadAttachment { hash } => {
                read_attachment_for(self, &project_id, hash).await.map(OwnerAnswer::FilePart)
            }
            OwnerAsk::WriteFile { put, idempotency_key } => {
                let written = write_file_for(self, user_id, project_id, put, idempotency_key).await;
                written.map(|(file, replayed)| OwnerAnswer::Written(file, replayed))
            }
            OwnerAsk::StageFile { path, form } => {
                let staged = stage_for(self, user_id, &project_id, path, form).await;
                staged.map(OwnerAnswer::Staged)
            }
            OwnerAsk::StagePart { part } => {
                let staged = stage_part_for(self, &user_id, part).await;
                staged.map(|()| OwnerAnswer::StagedPart)
            }
            OwnerAsk::PlaceFiles { files, idempotency_key } => {
                let placed = place_for(self, user_id, project_id, files, idempotency_key).await;
                placed.map(|(files, replayed)| OwnerAnswer::Placed(files, replayed))
            }
            OwnerAsk::GiveUpFiles { ids } => {
                self.receivings.give_up(&user_id, &ids);
                Ok(OwnerAnswer::GivenUp)
            }
            OwnerAsk::BeginUpload { begin } => {
                let open = begin_upload_for(self, user_id, &project_id, begin).await;
                open.map(OwnerAnswer::UploadOpen)
            }
            OwnerAsk::WriteUpload { handle, offset, bytes } => {
                let received = write_upload_for(self, &user_id, &handle, offset, bytes).await;
                received.map(OwnerAnswer::Received)
            }
            OwnerAsk::CommitUpload { handle } => {
                let done = commit_upload_for(self, user_id, &handle).await;
                done.map(OwnerAnswer::Done)
            }
            OwnerAsk::CancelUpload { handle } => {
                let cancelled = cancel_upload_for(self, &user_id, &handle).await;
                cancelled.map(|()| OwnerAnswer::GivenUp)
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
