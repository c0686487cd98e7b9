//! What a shell command line would do, piece by piece, so that rules can judge every piece.
//!
//! [`read`] takes the text that would be given to `bash -c` and answers with a [`Reading`]: each
//! simple command with its words fully literal, each file that a redirection writes or reads, and an
//! opaque piece for everything whose effect the text alone does not settle. Who judges the pieces
//! allows the line only if every piece is allowed; an opaque piece is never allowed without asking.
//!
//! Two readers look at each line: the grammar of tree-sitter and a small strict one of our own. Where
//! both do not see the same commands, the line is opaque, so a mistake in one of them asks a person
//! too often and never too seldom.
//!
//! Deliberately absent: rules, I/O, the environment, clocks, looking programs up. `docs/shell.md` has
//! the tables.

mod piece;

mod flat;
mod plain;
mod quote;
mod reader;
mod screen;
mod table;
mod tree;
mod word;

pub use piece::{Piece, Reading, Reason};
pub use reader::{COMMAND_BYTES_MAX, NESTING_MAX, read};
