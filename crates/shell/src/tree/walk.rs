//! From nodes of the tree to commands, redirections and what is not literal.

use tree_sitter::Node;

use super::Outline;
use crate::flat::{Redirect, Simple};
use crate::piece::Reason;
use crate::plain;
use crate::reader::NESTING_MAX;
use crate::word::Word;

pub(super) struct Walk<'a> {
    pub(super) text: &'a str,
    pub(super) outline: Outline,
}

/// Most places of a line that the tree lists as not literal; with one of them it is asked about anyway.
const OPAQUE_MAX: usize = 64;

/// Nodes that only hold statements.
const HOLDERS: &[&str] = &[
    "program",
    "list",
    "pipeline",
    "subshell",
    "compound_statement",
    "if_statement",
    "elif_clause",
    "else_clause",
    "while_statement",
    "do_group",
    "negated_command",
];

/// What may stand between them.
const SEPARATORS: &[&str] = &[
    ";", "\n", "&&", "||", "|", "|&", "&", "(", ")", "{", "}", "!", "if", "then", "elif", "else",
    "fi", "while", "until", "do", "done",
];

/// Nodes with commands inside that are no statements themselves, and why they are not literal.
const UNREAD: &[(&str, Reason)] = &[
    ("for_statement", Reason::Loop),
    ("c_style_for_statement", Reason::Loop),
    ("case_statement", Reason::Loop),
    ("function_definition", Reason::Function),
    ("declaration_command", Reason::ShellState),
    ("unset_command", Reason::ShellState),
    ("variable_assignment", Reason::OnlyAssignments),
    ("variable_assignments", Reason::OnlyAssignments),
    ("ERROR", Reason::Syntax),
];

impl<'a> Walk<'a> {
    pub(super) fn slice(&self, node: Node<'_>) -> &'a str {
        self.text.get(node.byte_range()).unwrap_or_default()
    }

    pub(super) fn opaque(&mut self, node: Node<'_>, why: Reason) {
        if self.outline.opaque.len() >= OPAQUE_MAX {
            return;
        }
        let text = self.slice(node).trim().to_owned();
        self.outline.opaque.push((node.start_byte(), why, text));
    }

    /// Reads a statement.
    pub(super) fn statement(&mut self, node: Node<'_>, depth: usize) {
        if depth > NESTING_MAX {
            self.opaque(node, Reason::TooDeep);
            return;
        }
        match node.kind() {
            "comment" => self.outline.has_comment = true,
            "command" => self.command(node, &[], depth),
            "redirected_statement" => self.redirected(node, depth),
            "test_command" => self.test(node, depth),
            "compound_statement" if self.slice(node).starts_with("((") => {
                self.opaque(node, Reason::Arithmetic);
                self.inside(node, depth);
            }
            kind if HOLDERS.contains(&kind) => self.holder(node, depth),
            kind => {
                let known = UNREAD.iter().find(|(unread, _)| *unread == kind);
                self.opaque(node, known.map_or(Reason::Syntax, |(_, why)| *why));
                self.inside(node, depth);
            }
        }
    }

    fn holder(&mut self, node: Node<'_>, depth: usize) {
        for child in children(node) {
            if child.is_named() {
                self.statement(child, depth + 1);
            } else if !SEPARATORS.contains(&child.kind()) {
                self.opaque(node, Reason::Syntax);
            }
        }
    }

    /// Reads the statements anywhere inside of `node`, which is none itself.
    pub(super) fn inside(&mut self, node: Node<'_>, depth: usize) {
        if node.child_count() == 0 {
            return;
        }
        if depth > NESTING_MAX {
            self.opaque(node, Reason::TooDeep);
            return;
        }
        for child in children(node) {
            match child.kind() {
                "command"
                | "redirected_statement"
                | "test_command"
                | "declaration_command"
                | "unset_command"
                | "for_statement"
                | "c_style_for_statement"
                | "case_statement"
                | "function_definition" => self.statement(child, depth + 1),
                kind if HOLDERS.contains(&kind) => self.statement(child, depth + 1),
                "file_redirect" => self.redirect(child, depth + 1, &mut vec![]),
                _ => self.inside(child, depth + 1),
            }
        }
    }

    /// Reads a simple command; `more` are arguments that the grammar puts behind redirections.
    fn command(&mut self, node: Node<'_>, more: &[Node<'_>], depth: usize) {
        let mut simple = Simple { at: node.start_byte(), ..Simple::default() };
        let own = children(node);
        for child in own.iter().chain(more).copied() {
            match child.kind() {
                "file_redirect" => {
                    let mut extra = vec![];
                    self.redirect(child, depth, &mut extra);
                    // The grammar puts words behind a target only where no name follows.
                    if !extra.is_empty() {
                        self.opaque(node, Reason::Syntax);
                    }
                }
                "herestring_redirect" => self.here_string(child, depth),
                "variable_assignment" if simple.words.is_empty() => {
                    simple.assignments.push(self.slice(child).to_owned());
                    self.inside(child, depth);
                }
                _ => {
                    simple.words.push(Word::new(self.slice(child)));
                    self.inside(child, depth);
                }
            }
        }
        self.outline.flat.commands.push(simple);
    }

    fn redirected(&mut self, node: Node<'_>, depth: usize) {
        let mut body = None;
        let mut more = vec![];
        for child in children(node) {
            match child.kind() {
                "file_redirect" => self.redirect(child, depth, &mut more),
                "herestring_redirect" => self.here_string(child, depth),
                "heredoc_redirect" => self.document(child, depth, &mut more),
                _ if body.is_none() => body = Some(child),
                _ => self.opaque(node, Reason::Syntax),
            }
        }
        match body {
            Some(command) if command.kind() == "command" => self.command(command, &more, depth),
            Some(statement) => {
                if !more.is_empty() {
                    self.opaque(node, Reason::Syntax);
                }
                self.statement(statement, depth + 1);
            }
            // Only in what is not understood anyway.
            None if !more.is_empty() => self.opaque(node, Reason::Syntax),
            None => {}
        }
    }

    /// Reads a redirection; the grammar takes the words behind its target for targets too.
    pub(super) fn redirect<'t>(&mut self, node: Node<'t>, depth: usize, extra: &mut Vec<Node<'t>>) {
        let mut operator = None;
        let mut target = None;
        for child in children(node) {
            if child.kind() == "file_descriptor" {
                continue;
            }
            if operator.is_none() {
                operator = Some(child.kind().to_owned());
            } else if target.is_none() {
                target = Some(Word::new(self.slice(child)));
                self.inside(child, depth);
            } else {
                extra.push(child);
            }
        }
        let at = node.start_byte();
        match (operator, target) {
            (Some(operator), Some(target)) => {
                self.outline.flat.redirects.push(Redirect { at, operator, target });
            }
            // Closes a file descriptor.
            (Some(operator), None) if matches!(operator.as_str(), ">&-" | "<&-") => {
                let operator = operator.trim_end_matches('-').to_owned();
                let target = Word::new("-");
                self.outline.flat.redirects.push(Redirect { at, operator, target });
            }
            _ => self.opaque(node, Reason::Syntax),
        }
    }

    fn here_string(&mut self, node: Node<'_>, depth: usize) {
        let text = self.slice(node).trim_start_matches(|c: char| c.is_ascii_digit());
        let word = text.strip_prefix("<<<").unwrap_or_default().trim_start_matches([' ', '\t']);
        if let Err(why) = Word::new(word).value {
            self.opaque(node, why);
        }
        self.inside(node, depth);
    }

    /// `[ .. ]` is a command like others; what has its own grammar is not read.
    fn test(&mut self, node: Node<'_>, depth: usize) {
        let text = self.slice(node);
        let is_command = text.starts_with('[') && !text.starts_with("[[");
        if let Some(words) = plain::words(text).filter(|_| is_command) {
            let at = node.start_byte();
            self.outline.flat.commands.push(Simple { at, assignments: vec![], words });
            return;
        }
        self.opaque(node, if text.starts_with("((") { Reason::Arithmetic } else { Reason::Test });
        self.inside(node, depth);
    }
}

/// The children of `node`, named or not.
pub(super) fn children(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).collect()
}
