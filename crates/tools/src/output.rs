//! What a call answers with.

use iris_agent::Attached;
use serde_json::Value;

/// Longest text that a model gets from one call, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Room for the lines that say what was cut and how to have it.
const NOTICE_BYTES_MAX: usize = 256;
/// Most bytes that are kept of a text that is longer than a model gets at once.
pub const WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What the attachment of a text that was cut is.
pub const TEXT: &str = "text/plain";

/// The result of a call that worked.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolOutput {
    /// What the model reads; at most [`OUTPUT_BYTES_MAX`].
    pub output: String,
    /// Facts for clients, an object; the model does not see them.
    pub metadata: Value,
    /// The files that the call created or replaced, in order.
    pub changes: Vec<FileChange>,
    /// What is kept besides: the whole of a text that was cut, of the type [`TEXT`], or an image.
    pub attachment: Option<Attached>,
}

/// A file that a call created or replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Relative to the project's directory.
    pub path: String,
    /// Whether there was no file before.
    pub created: bool,
    /// Bytes now in the file.
    pub size: u64,
    /// SHA-256 of the content, 64 hex digits.
    pub hash: String,
}

impl ToolOutput {
    /// An output that changed no file. Text that is too long loses its middle; all of it, or the first
    /// [`WHOLE_BYTES_MAX`] of it, is kept beside.
    pub fn new(output: &str, metadata: Value) -> Self {
        let attachment = (output.len() > OUTPUT_BYTES_MAX).then(|| {
            let end = output.floor_char_boundary(WHOLE_BYTES_MAX);
            let kept = output.get(..end).unwrap_or_default();
            Attached { mime_type: TEXT.to_owned(), bytes: kept.as_bytes().into() }
        });
        Self { output: bounded(output), metadata, changes: Vec::new(), attachment }
    }

    /// The same with something that is kept besides.
    #[must_use]
    pub fn with_attachment(self, attachment: Attached) -> Self {
        Self { attachment: Some(attachment), ..self }
    }

    /// Adds a file that the call created or replaced.
    #[must_use]
    pub fn with_change(mut self, change: FileChange) -> Self {
        self.changes.push(change);
        self
    }
}

/// Keeps the beginning and the end of `text` and says how much is missing between them.
fn bounded(text: &str) -> String {
    if text.len() <= OUTPUT_BYTES_MAX {
        return text.to_owned();
    }
    let half = (OUTPUT_BYTES_MAX - NOTICE_BYTES_MAX) / 2;
    let head_end = text.floor_char_boundary(half);
    let tail_start = text.ceil_char_boundary(text.len() - half);
    let (head, tail) = (text.get(..head_end), text.get(tail_start..));
    let cut = tail_start - head_end;
    format!("{}\n[{cut} bytes cut here]\n{}", head.unwrap_or_default(), tail.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_at_the_limit_is_kept_and_more_loses_its_middle() {
        let full = "ä".repeat(OUTPUT_BYTES_MAX / 2);
        let output = ToolOutput::new(&full, Value::Null);
        assert_eq!((output.output, output.attachment), (full, None));

        let long = format!("head{}tail", "ä".repeat(OUTPUT_BYTES_MAX));
        let output = ToolOutput::new(&long, Value::Null).output;
        assert!(output.len() <= OUTPUT_BYTES_MAX);
        assert!(output.starts_with("headä") && output.ends_with("ätail"));
        let whole = ToolOutput::new(&long, Value::Null).attachment.unwrap();
        assert_eq!((whole.mime_type.as_str(), &*whole.bytes), (TEXT, long.as_bytes()));
        let kept = output.matches('ä').count() * 2 + 8;
        assert!(output.contains(&format!("\n[{} bytes cut here]\n", long.len() - kept)));
    }
}
