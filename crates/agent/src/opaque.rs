//! What a provider says that only it understands, on its way to the store and back.

use std::fmt;
use std::sync::Arc;

/// Most bytes of [`Opaque::json`].
pub const OPAQUE_BYTES_MAX: usize = 1024 * 1024;

/// What only the provider that sent it can read, such as the signature of a thought.
///
/// Kept with the part that it belongs to and sent back to the same model with the same key byte for byte: its text
/// is in a form of that kind of provider.
/// Clients are never told of it and no log shows it: some of it is the model's own thought, encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct Opaque {
    /// The kind of provider, such as `anthropic`.
    pub kind: String,
    /// JSON text in a form that is the adapter's own; at most [`OPAQUE_BYTES_MAX`].
    pub json: Arc<str>,
}

impl Opaque {
    /// Its text where it is for providers of this kind.
    pub fn for_kind(&self, kind: &str) -> Option<&str> {
        (self.kind == kind).then_some(&*self.json)
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opaque({}, {} bytes)", self.kind, self.json.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_is_printed_and_other_kinds_get_nothing() {
        let opaque = Opaque { kind: "anthropic".into(), json: r#"{"signature":"s3cret"}"#.into() };

        assert_eq!(format!("{opaque:?}"), "Opaque(anthropic, 22 bytes)");
        assert_eq!(opaque.for_kind("anthropic"), Some(r#"{"signature":"s3cret"}"#));
        assert_eq!(opaque.for_kind("openai"), None);
    }
}
