//! Ids: a prefix that names the kind, `_`, and 32 lower-case hex digits that sort by creation time.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text was not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an id like `{prefix}_` followed by 32 lower-case hex digits")]
pub struct InvalidId {
    /// The prefix that was expected, without the underscore.
    pub prefix: &'static str,
}

/// Number of hex digits after the prefix: 128 bits.
const BODY_LEN: usize = 32;
/// Of a whole id. It is kept in place: ids are cloned with everything that is said about anything.
const ID_LEN: usize = 3 + 1 + BODY_LEN;

/// The text as an id, if it is one of this kind.
fn checked(text: &str, prefix: &'static str) -> Result<[u8; ID_LEN], InvalidId> {
    let body = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
    let is_hex = |body: &str| body.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = body.filter(|body| is_hex(body)).and_then(|_| text.as_bytes().try_into().ok());
    id.ok_or(InvalidId { prefix })
}

/// Reads an id where it stands, without a copy of the text.
struct IdVisitor<Id>(PhantomData<Id>);

impl<Id: FromStr<Err = InvalidId>> Visitor<'_> for IdVisitor<Id> {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; ID_LEN]);

        impl $name {
            /// The prefix of this kind of id, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Builds the id from 128 bits, usually a UUID version 7 so that ids sort by time.
            pub fn from_bits(bits: u128) -> Self {
                const { assert!($prefix.len() + 1 + BODY_LEN == ID_LEN) };
                let mut id = [0; ID_LEN];
                let written = write!(id.as_mut_slice(), "{}_{bits:032x}", $prefix);
                debug_assert!(written.is_ok(), "an id has its length");
                Self(id)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                // It is ASCII.
                str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                checked(text, $prefix).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(IdVisitor(PhantomData))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": concat!("^", $prefix, "_[0-9a-f]{32}$") })
            }
        }
    )*};
}

id_types! {
    /// A person or program with an account.
    UserId = "usr";
    /// One login of a user: the family of refresh tokens that came from it.
    AuthSessionId = "aus";
    /// A key of a user for programs.
    KeyId = "key";
    /// A key with which a model provider is asked.
    CredentialId = "crd";
    /// Who a user is at another provider of logins.
    IdentityId = "idn";
    /// An invitation to a project or to the server.
    InvitationId = "inv";
    /// A project: one database, one directory, its sessions and agents.
    ProjectId = "prj";
    /// One conversation inside a project.
    SessionId = "ses";
    /// One message of a session.
    MessageId = "msg";
    /// One part of a message.
    PartId = "prt";
    /// One run of the agent loop: the durable unit of work.
    RunId = "run";
    /// An agent that a project defined.
    AgentId = "agt";
    /// A tool that a project defined.
    ToolId = "tol";
    /// One call of a tool, numbered by the server whatever the provider called it.
    ToolCallId = "tcl";
    /// One request for a person's approval.
    ApprovalId = "apr";
    /// One call of the tool `question`: what an agent asks the people of its session.
    QuestionId = "qst";
    /// One entry of the to-do list of a session.
    TodoId = "tdo";
    /// One rule about what tools may touch.
    PermissionId = "prm";
    /// One archive of a project on the server's disk.
    BackupId = "bkp";
    /// One moment of the files of a project, which can be gone back to.
    SnapshotId = "snp";
    /// One recorded request to a model provider.
    CaptureId = "cap";
    /// One WebSocket connection or event stream.
    ConnectionId = "con";
    /// One request, for finding it in the log.
    RequestId = "req";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_a_round_trip_and_sorts_by_its_bits() {
        let (low, high) = (SessionId::from_bits(1), SessionId::from_bits(u128::MAX));
        assert!(low < high);
        assert_eq!(high.as_str().parse::<SessionId>(), Ok(high.clone()));
        let json = serde_json::to_string(&high).unwrap();
        assert_eq!(serde_json::from_str::<SessionId>(&json).unwrap(), high);
    }

    #[test]
    fn text_that_is_not_an_id_of_the_kind_is_refused() {
        let valid = SessionId::from_bits(7).to_string();
        for text in ["", "ses_", "ses_../../etc/passwd", "prj_00000000000000000000000000000007"] {
            assert!(text.parse::<SessionId>().is_err(), "{text} was accepted");
        }
        assert!(format!("{valid}0").parse::<SessionId>().is_err());
        assert!(valid.to_uppercase().parse::<SessionId>().is_err());
    }
}
