//! `find` and `fd`: expressions that run, delete or write.

use super::Call;
use crate::piece::{Piece, Reason};

/// The pieces of a call of `find`; what `-exec` runs gets arguments that nobody knows before.
pub(super) fn pieces(call: &Call<'_>) -> Option<Vec<Piece>> {
    if call.name != "find" && call.name != "gfind" {
        return None;
    }
    let mut pieces = Vec::new();
    let mut rest = call.arguments;
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        match word.as_str() {
            "-exec" | "-execdir" | "-ok" | "-okdir" => {
                pieces.push(call.opaque(Reason::UnknownArguments));
                let is_end = |word: &String| matches!(word.as_str(), ";" | "+");
                let end = after.iter().position(is_end).unwrap_or(after.len());
                pieces.extend(call.inner(after.get(..end).unwrap_or_default()));
                rest = after.get(end..).unwrap_or_default();
            }
            "-delete" => pieces.push(call.opaque(Reason::OptionWrites)),
            "-fprint" | "-fprint0" | "-fls" | "-fprintf" => {
                let path = after.first().cloned().unwrap_or_default();
                pieces.push(call.opaque(Reason::OptionWrites));
                pieces.push(Piece::Write { path, append: false });
            }
            "-files0-from" => pieces.push(call.opaque(Reason::UnknownArguments)),
            _ => {}
        }
    }
    // The names of these expressions can be values of others (`-name -delete`): then it asks for
    // nothing, which is the right side to err on.
    pieces.insert(0, call.command());
    Some(pieces)
}
