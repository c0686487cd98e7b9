//! Bounds of the wire (INV-7). Those that operators may change are defaults.

/// Largest WebSocket message and JSON body, in bytes.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest content of a file in `PUT .../files/content`, in bytes.
pub const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest file that is sent part by part, either way, in bytes.
pub const TRANSFER_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most files of one upload.
pub const UPLOAD_FILES_MAX: usize = 256;
/// Longest name of a file that is uploaded, in bytes.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Most bytes of one chunk of a file over a WebSocket.
pub const CHUNK_BYTES_MAX: usize = 48 * 1024;
/// Fewest bytes of such a chunk from a client, but of the last one.
pub const CHUNK_BYTES_MIN: usize = 16 * 1024;
/// Bytes of the head of a chunk.
pub const CHUNK_HEAD_BYTES: usize = 24;
/// Most chunks of one stream that wait to be acknowledged.
pub const CHUNKS_UNACKNOWLEDGED_MAX: usize = 4;
/// Most streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: usize = 8;
/// Most files that one user sends into one project over sockets and that are not there whole.
pub const UPLOADS_PER_USER_MAX: usize = 32;
/// Most such files of all users in one project.
pub const UPLOADS_MAX: usize = 1_000;
/// How long what came of a file is kept after its sender began or went on with it, in milliseconds.
pub const UPLOAD_KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// Most entries of one page of `file.list`, and most matches of `file.search`.
pub const FILE_ENTRIES_MAX: u32 = 1000;
/// Entries of one page of `file.list` when the request does not say.
pub const FILE_ENTRIES_DEFAULT: u32 = 200;
/// Matches of `file.search` when the request does not say.
pub const FILE_MATCHES_DEFAULT: u32 = 100;
/// Most files that one `file.move` or `file.delete` changes.
pub const FILES_AT_ONCE_MAX: usize = 10_000;
/// Most files of one project whose changes are looked for on the disk.
pub const FILES_WATCHED_MAX: usize = 100_000;
/// Most versions that the answer of one change names.
pub const FILE_VERSIONS_TOLD_MAX: usize = 100;
/// Changes in one transaction from which on they are told in one event, `file.changed`.
pub const FILE_EVENTS_AT_ONCE_MAX: usize = 100;
/// Largest text of which a difference is looked for line by line, in bytes.
pub const FILE_DIFF_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes of lines in one difference; what is beyond them is left out.
pub const FILE_DIFF_LINES_BYTES_MAX: usize = 256 * 1024;
/// Most reverts of a session that can be undone, one after the other.
pub const REVERTS_KEPT_MAX: u32 = 20;
/// Most locks of one project.
pub const FILE_LOCKS_MAX: usize = 1000;
/// Longest time of a lock, in milliseconds.
pub const FILE_LOCK_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// How long a lock lasts when the request does not say, in milliseconds.
pub const FILE_LOCK_MS_DEFAULT: u64 = 5 * 60 * 1000;
/// How long a lock stays when its owner has no connection any more, in milliseconds.
pub const FILE_LOCK_GRACE_MS: u64 = 30_000;
/// How long a tool waits for a lock before the model is told who has it, in milliseconds.
pub const FILE_LOCK_WAIT_MS: u64 = 30_000;
/// Most clones that one user has under way.
pub const CLONES_PER_USER_MAX: u64 = 2;
/// Most files, and most branches, that one answer about a repository names.
pub const GIT_ENTRIES_MAX: usize = 1000;
/// Most bytes of the text of a difference of two commits.
pub const GIT_DIFF_BYTES_MAX: usize = 256 * 1024;
/// Most bytes of the message of a commit that are shown.
pub const GIT_MESSAGE_BYTES_MAX: usize = 4096;
/// Longest message of a commit that is made, in bytes.
pub const GIT_COMMIT_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Most files and directories that one commit names.
pub const GIT_COMMIT_PATHS_MAX: usize = 1000;
/// Most files that the difference of a run names.
pub const RUN_DIFF_FILES_MAX: usize = 500;
/// Most fragments of one WebSocket message.
pub const FRAGMENTS_MAX: usize = 16 * 1024;
/// Most bytes that a connection may send before it is authenticated.
pub const HELLO_BYTES_MAX: usize = 4096;
/// Longest `id` of a request, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Longest `deadlineMs` of a request.
pub const DEADLINE_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Most requests of one connection that may be in flight.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 32;
/// Most rooms that one connection may join.
pub const ROOMS_PER_CONNECTION_MAX: usize = 128;
/// How long a user with too many connections is to wait before the next attempt, in milliseconds: until
/// then those of them that have lost their client are found out.
pub const CONNECTION_RETRY_MS: u64 = 2_500;
/// Most protocol errors of one connection in a minute before it is closed.
pub const PROTOCOL_ERRORS_PER_MINUTE_MAX: usize = 20;
/// Most tickets of one user that are good at the same time; the oldest goes when there are more.
pub const TICKETS_PER_USER_MAX: usize = 64;
/// Most tickets of a server that are good at the same time.
pub const TICKETS_MAX: usize = 16_384;
/// Most logins of one user that are kept; those that ended go when there are more, and then the oldest.
pub const LOGINS_PER_USER_MAX: usize = 100;
/// Most API keys of one user.
pub const API_KEYS_PER_USER_MAX: u64 = 100;
/// Most identities of one user at providers of logins.
pub const IDENTITIES_PER_USER_MAX: usize = 20;
/// Most invitations to one project, or to the server alone, that can be accepted at the same time.
pub const INVITATIONS_PENDING_MAX: u64 = 200;
/// Largest preferences of a user, in bytes of JSON.
pub const PREFERENCES_BYTES_MAX: usize = 16 * 1024;
/// Longest URL of a picture, in bytes.
pub const AVATAR_URL_BYTES_MAX: usize = 2048;
/// Largest text of one message, in bytes.
pub const MESSAGE_TEXT_BYTES_MAX: usize = 256 * 1024;
/// Most files that go with one message.
pub const ATTACHMENTS_MAX: usize = 20;
/// Most bytes of all files that go with one message together.
pub const ATTACHMENTS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most images among them.
pub const ATTACHED_IMAGES_MAX: usize = 8;
/// Most bytes of these together: in base64, with all that is said, they stay below the smallest request that a
/// provider takes, 20 MB.
pub const ATTACHED_IMAGES_BYTES_MAX: u64 = 12 * 1024 * 1024;
/// Largest image that models are shown, in bytes: in base64 it is 5 MB, the most that every provider takes.
pub const IMAGE_BYTES_MAX: u64 = 3_750_000;
/// Longest side of an image that models are shown, in pixels: the most that every provider takes.
pub const IMAGE_SIDE_MAX: u32 = 8_000;
/// Longest attached text of which models read anything without asking for it, in bytes.
pub const ATTACHED_TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of one attached text that models read without asking for it.
pub const ATTACHED_TEXT_TOLD_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of all texts attached to one message together that they do.
pub const ATTACHED_TEXTS_TOLD_BYTES_MAX: usize = 256 * 1024;
/// Longest name or title, in bytes.
pub const NAME_BYTES_MAX: usize = 200;
/// Longest description or reason, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;
/// Most bytes of one piece of what a tool answered.
pub const OUTPUT_PIECE_BYTES_MAX: usize = 256 * 1024;
/// Longest description of an agent, in bytes: models read it.
pub const AGENT_DESCRIPTION_BYTES_MAX: usize = 1_000;
/// Most sub-agents of one session that work at the same time.
pub const TASKS_OPEN_MAX: u64 = 8;
/// How many sessions deep sub-agents of sub-agents are: those of a session that a person began are 1.
pub const TASK_DEPTH_MAX: usize = 2;
/// Most bytes of what a sub-agent said that are told to who set it to work.
pub const TASK_RESULT_BYTES_MAX: usize = 48 * 1024;
/// Longest prompt of an agent, in bytes.
pub const PROMPT_BYTES_MAX: usize = 64 * 1024;
/// Largest archive that `project.import` takes, in bytes.
pub const IMPORT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Most backups of one project that are kept at the same time.
pub const BACKUPS_MAX: usize = 200;
/// Longest reason of a maintenance, in bytes.
pub const MAINTENANCE_MESSAGE_BYTES_MAX: usize = 500;
/// Largest settings document of a project, in bytes of JSON.
pub const SETTINGS_BYTES_MAX: usize = 64 * 1024;
/// Most tools of one agent.
pub const AGENT_TOOLS_MAX: usize = 128;
/// Most permission rules of one agent.
pub const AGENT_PERMISSIONS_MAX: usize = 128;
/// Most tools that one project defines.
pub const CUSTOM_TOOLS_MAX: u64 = 100;
/// Largest JSON Schema of a tool that a project defines, or of an answer, in bytes of JSON.
pub const TOOL_SCHEMA_BYTES_MAX: usize = 32 * 1024;
/// Largest request or command of a tool that a project defines, in bytes of JSON, without its secrets.
pub const TOOL_CONFIG_BYTES_MAX: usize = 32 * 1024;
/// Most secret headers of one tool.
pub const SECRET_HEADERS_MAX: usize = 16;
/// Shortest secret, in bytes: a shorter one could not be told from other text where it has to be hidden.
pub const SECRET_BYTES_MIN: usize = 8;
/// Longest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 4096;
/// Most questions that one call of the tool `question` asks.
pub const QUESTIONS_MAX: usize = 8;
/// Longest text of a question and longest description of an option, in bytes.
pub const QUESTION_TEXT_BYTES_MAX: usize = 1_000;
/// Most options of one question.
pub const QUESTION_OPTIONS_MAX: usize = 10;
/// Most texts in the answer to one question: all of its options, and one more.
pub const QUESTION_ANSWERS_MAX: usize = 11;
/// Most bytes that the texts of all answers in one `question.answer` have together.
pub const ANSWERS_BYTES_MAX: usize = 32 * 1024;
/// Most entries of the to-do list of one session.
pub const TODOS_MAX: usize = 100;
/// Longest content of an entry of a to-do list, in bytes.
pub const TODO_BYTES_MAX: usize = 1_000;
/// Most messages that may wait in one session.
pub const QUEUED_MESSAGES_MAX: usize = 64;
/// Most messages that one `session.message.retry`, `session.message.edit` or `session.revert` supersedes.
pub const SUPERSEDED_MESSAGES_MAX: usize = 1_000;
/// Most parts of messages that one `session.fork` copies.
pub const FORKED_PARTS_MAX: usize = 10_000;
/// Largest document of `session.export`, in bytes.
pub const EXPORT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest that a capture lasts, in minutes.
pub const CAPTURE_MINUTES_MAX: u32 = 1_440;
/// How long a capture lasts when the request does not say, in minutes.
pub const CAPTURE_MINUTES_DEFAULT: u32 = 60;
/// Most bytes that a capture keeps, and can be asked to.
pub const CAPTURE_BYTES_MAX: u64 = 67_108_864;
/// Fewest bytes that a capture can be asked to keep.
pub const CAPTURE_BYTES_MIN: u64 = 8_388_608;
/// Bytes that a capture keeps when the request does not say.
pub const CAPTURE_BYTES_DEFAULT: u64 = 16_777_216;
/// Most bytes of one captured body, either way; what is beyond them is left out.
pub const CAPTURE_BODY_BYTES_MAX: usize = 2_097_152;
/// Most records that a capture keeps; beyond them the oldest go.
pub const CAPTURE_RECORDS_MAX: u64 = 500;
/// Most pieces of one captured answer whose times are kept; the last one stands for all that follow.
pub const CAPTURE_CHUNKS_MAX: usize = 4_096;
/// Most sessions of one project that are captured, or of which captures are kept, at the same time.
pub const CAPTURES_MAX: u64 = 10;
/// How long a captured request is kept, in milliseconds.
pub const CAPTURE_KEPT_MS: u64 = 604_800_000;
/// From how many unread messages on they are not counted any more.
pub const UNREAD_MAX: u32 = 100;
/// Most entries of one page of a list.
pub const PAGE_MAX: u32 = 200;
/// Entries of one page of a list when the request does not say.
pub const PAGE_DEFAULT: u32 = 50;
/// Most records of one page of the supervision log.
pub const SUPERVISION_RECORDS_MAX: usize = 1_000;
/// Records of one page of the supervision log when the request does not say.
pub const SUPERVISION_RECORDS_DEFAULT: usize = 200;
/// Longest query of `session.search`, in bytes.
pub const SEARCH_QUERY_BYTES_MAX: usize = 256;
/// Most hits of one page of `session.search`.
pub const SEARCH_HITS_MAX: u32 = 50;
/// Hits of one page of `session.search` when the request does not say.
pub const SEARCH_HITS_DEFAULT: u32 = 20;
/// Most connections, and most users, that count in the presence of one project.
pub const PRESENCE_CONNECTIONS_MAX: usize = 1_024;
/// Most events that `subscribe` replays before it answers `reset`.
pub const REPLAY_EVENTS_MAX: usize = 1_000;
/// Most bytes of events that `subscribe` replays before it answers `reset`.
pub const REPLAY_BYTES_MAX: usize = 512 * 1024;
/// Most frames that may wait for a reader before its connection is closed with 4008.
pub const OUTBOUND_FRAMES_MAX: usize = 4096;
/// Frames that wait for a reader from which on pieces of streaming text are left out.
pub const OUTBOUND_FRAMES_SOFT_MAX: usize = 256;
/// Bytes that wait for a reader from which on pieces of streaming text are left out.
pub const OUTBOUND_BYTES_SOFT_MAX: usize = 256 * 1024;
/// Most bytes that may wait for a reader before its connection is closed with 4008.
pub const OUTBOUND_BYTES_MAX: usize = 1024 * 1024;
