//! Here-documents: their bodies, and what the grammar hangs on their first line.

use tree_sitter::Node;

use super::walk::{Walk, children};
use crate::piece::Reason;

impl Walk<'_> {
    /// Reads a here-document; words on its first line are arguments of the command before it.
    pub(super) fn document<'t>(&mut self, node: Node<'t>, depth: usize, more: &mut Vec<Node<'t>>) {
        let mut is_quoted = false;
        for (index, child) in children(node).into_iter().enumerate() {
            let is_argument = node.field_name_for_child(u32::try_from(index).unwrap_or(u32::MAX))
                == Some("argument");
            match child.kind() {
                _ if is_argument => more.push(child),
                "heredoc_start" => is_quoted = self.slice(child).contains(['\'', '"', '\\']),
                "heredoc_body" => {
                    if !is_quoted && self.slice(child).contains(['$', '`', '\\']) {
                        self.opaque(node, Reason::HereDocument);
                        self.inside(child, depth);
                    }
                }
                "file_redirect" => self.redirect(child, depth, more),
                "heredoc_redirect" => self.document(child, depth + 1, more),
                "heredoc_end" | "file_descriptor" => {}
                _ if child.is_named() => self.statement(child, depth + 1),
                "<<" | "<<-" | "&&" | "||" | "|" | "|&" | ";" | "&" | "\n" => {}
                _ => self.opaque(node, Reason::Syntax),
            }
        }
    }
}
