//! Finding text: what people and agents said in a project, newest first.
//!
//! The index holds words alone (FTS5, "Contentless-Delete Tables"); what is shown of a hit is cut
//! out of the part itself. A part is noted in the transaction that writes it and comes into the index
//! with the next [`IndexParts`], many at once. Work is bounded in each direction: entries of the index that are looked
//! at, hits, and bytes of text that excerpts are made of. A search that a bound ends is a page that
//! has more behind it, even if it holds fewer hits than it may.

use std::ops::Range;

use iris_protocol::limits::{SEARCH_HITS_MAX, SEARCH_QUERY_BYTES_MAX};
use iris_protocol::{MessageId, MessageRole, Part, PartId, SearchHit, SearchPage, SessionId};
use rusqlite::{Connection, Row, params};
use unicode_normalization::UnicodeNormalization;

use super::blobs::Bite;
use super::queries;
use crate::{Command, Durability, StoreError, WriteTx, column};

/// Most entries of the index that one page looks at: those of deleted sessions are passed over.
const ENTRIES_MAX: usize = 2_000;
/// Most bytes of text that one page reads to make its excerpts of; one part is read in any case.
const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Most words of a query. More are not looked at.
const WORDS_MAX: usize = 32;
/// Most parts that one command brings into the index.
const INDEXED_MAX: u32 = 128;
/// Most bytes of text that it does; one part is indexed in any case.
const INDEXED_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of an excerpt, without the dots.
const EXCERPT_BYTES_MAX: usize = 200;
/// Of these, how many may stand before the first match.
const EXCERPT_BYTES_BEFORE: usize = 60;

const ENTRIES: &str = "SELECT rowid FROM search_index
     WHERE search_index MATCH ?1 AND rowid < ?2 ORDER BY rowid DESC";
const ENTRY: &str = "SELECT p.id, p.message_id, m.session_id, m.role, m.created_at, p.body, p.blob
     FROM search_parts e
     JOIN message_parts p ON p.id = e.part_id
     JOIN messages m ON m.id = p.message_id
     JOIN sessions s ON s.id = m.session_id
     WHERE e.id = ?1 AND s.status <> 'deleted' AND m.state <> 'superseded'";
const NOTE: &str = "INSERT INTO search_parts (part_id) VALUES (?1)";
const IS_WAITING: &str = "SELECT 1 FROM search_parts WHERE indexed = 0";
const WAITING: &str = "SELECT e.id, m.session_id, p.body, p.blob
     FROM search_parts e
     JOIN message_parts p ON p.id = e.part_id
     JOIN messages m ON m.id = p.message_id
     WHERE e.indexed = 0 ORDER BY e.id LIMIT ?1";
const INDEX: &str = "INSERT INTO search_index (rowid, session, text) VALUES (?1, ?2, ?3)";
const INDEXED: &str = "UPDATE search_parts SET indexed = 1 WHERE id = ?1";

/// Notes a new part for the index, if it is text: what a person or an agent said.
pub(super) fn note(conn: &Connection, part: &Part) -> Result<(), StoreError> {
    match part {
        Part::Text { id, .. } => note_text(conn, id),
        Part::Reasoning { .. }
        | Part::Tool(_)
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => Ok(()),
    }
}

/// Notes a new part of text.
pub(super) fn note_text(conn: &Connection, id: &PartId) -> Result<(), StoreError> {
    conn.prepare_cached(NOTE)?.execute([id.as_str()])?;
    Ok(())
}

/// Whether there are parts that the index does not have yet.
pub(super) fn is_waiting(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached(IS_WAITING)?.exists([])?)
}

/// Brings the text that waits for it into the index, a bite at a time. It can be done again from what
/// is in the database, so that it need not survive a loss of power.
#[derive(Debug, Clone, Copy)]
pub struct IndexParts;

impl Command for IndexParts {
    const DURABILITY: Durability = Durability::ProcessDeath;

    type Output = Bite;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Bite, StoreError> {
        let conn = tx.conn();
        let mut waiting = conn.prepare_cached(WAITING)?;
        let waiting =
            waiting.query_map([INDEXED_MAX], Waiting::of)?.collect::<Result<Vec<_>, _>>()?;
        let (mut rows, mut bytes) = (0, 0);
        for part in &waiting {
            if bytes > INDEXED_BYTES_MAX {
                break;
            }
            bytes += part.index(conn)?;
            rows += 1;
        }
        Ok(Bite { rows, more: rows < waiting.len() as u64 || rows == u64::from(INDEXED_MAX) })
    }
}

/// A part that is not in the index.
struct Waiting {
    id: i64,
    session_id: SessionId,
    body: String,
    blob: Option<Vec<u8>>,
}

impl Waiting {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            session_id: column::word(row, "session_id")?,
            body: row.get("body")?,
            blob: row.get("blob")?,
        })
    }

    /// Answers how many bytes of text it is.
    fn index(&self, conn: &Connection) -> Result<usize, StoreError> {
        let text = match queries::part(conn, &self.body, self.blob.as_deref()) {
            Ok(Part::Text { text, .. }) => text,
            // What cannot be read cannot be found, and holds up no other part.
            Ok(
                Part::Reasoning { .. }
                | Part::Tool(_)
                | Part::Subtask(_)
                | Part::Compaction(_)
                | Part::AnswerFormat(_)
                | Part::Attachment(_)
                | Part::Step { .. },
            )
            | Err(StoreError::BlobCorrupt { .. }) => String::new(),
            Err(error) => return Err(error),
        };
        let words = params![self.id, session_word(&self.session_id), text];
        conn.prepare_cached(INDEX)?.execute(words)?;
        conn.prepare_cached(INDEXED)?.execute([self.id])?;
        Ok(text.len())
    }
}

/// The id of a session as one word of the index.
fn session_word(id: &SessionId) -> &str {
    id.as_str().split_once('_').map_or(id.as_str(), |(_, word)| word)
}

/// A page of the text parts that hold every word of `query`, newest first.
pub(super) fn search(
    conn: &Connection,
    query: &str,
    session_id: Option<&SessionId>,
    limit: u32,
    cursor: Option<&str>,
) -> Result<SearchPage, StoreError> {
    let words = Words::parse(query)?;
    let limit = limit.clamp(1, SEARCH_HITS_MAX) as usize;
    let before = match cursor {
        None => i64::MAX,
        Some(cursor) => cursor
            .parse::<i64>()
            .ok()
            .filter(|before| *before > 0 && !cursor.starts_with('+'))
            .ok_or_else(|| StoreError::InvalidCursor { cursor: cursor.to_owned() })?,
    };
    let mut entries = conn.prepare_cached(ENTRIES)?;
    let mut entries = entries.query(params![words.expression(session_id), before])?;
    let (mut hits, mut last, mut seen, mut bytes) = (Vec::new(), before, 0, 0);
    while let Some(row) = entries.next()? {
        if hits.len() == limit || seen == ENTRIES_MAX || bytes > TEXT_BYTES_MAX {
            let next_cursor = Some(last.to_string());
            return Ok(SearchPage { hits, next_cursor, has_more: true });
        }
        last = row.get(0)?;
        seen += 1;
        let Some(entry) = queries::first(conn, ENTRY, [last], Entry::of)? else { continue };
        let text = queries::part(conn, &entry.body, entry.blob.as_deref())?;
        let Part::Text { text, .. } = text else { continue };
        bytes += text.len();
        hits.push(entry.hit(words.excerpt(&text)));
    }
    Ok(SearchPage { hits, next_cursor: None, has_more: false })
}

/// A part that the index names.
struct Entry {
    part_id: PartId,
    message_id: MessageId,
    session_id: SessionId,
    role: MessageRole,
    at: i64,
    body: String,
    blob: Option<Vec<u8>>,
}

impl Entry {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            part_id: column::word(row, "id")?,
            message_id: column::word(row, "message_id")?,
            session_id: column::word(row, "session_id")?,
            role: column::word(row, "role")?,
            at: row.get("created_at")?,
            body: row.get("body")?,
            blob: row.get("blob")?,
        })
    }

    fn hit(self, excerpt: String) -> SearchHit {
        let Self { part_id, message_id, session_id, role, at, body: _, blob: _ } = self;
        SearchHit { session_id, message_id, part_id, role, excerpt, at }
    }
}

/// What somebody looks for.
#[derive(Debug)]
struct Words {
    /// As given, each between two spaces, with at least one letter or digit in it.
    terms: Vec<String>,
}

impl Words {
    fn parse(query: &str) -> Result<Self, StoreError> {
        if query.len() > SEARCH_QUERY_BYTES_MAX {
            let problem = format!("the query is longer than {SEARCH_QUERY_BYTES_MAX} bytes");
            return Err(StoreError::InvalidQuery { problem });
        }
        // A NUL would end the expression for SQLite.
        let is_space = |c: char| c.is_whitespace() || c.is_control();
        let has_word = |term: &&str| term.contains(char::is_alphanumeric);
        let terms = query.split(is_space).filter(has_word).take(WORDS_MAX);
        let terms: Vec<String> = terms.map(str::to_owned).collect();
        if terms.is_empty() {
            let problem = "the query has no letter and no digit in it".to_owned();
            return Err(StoreError::InvalidQuery { problem });
        }
        Ok(Self { terms })
    }

    /// In the language of FTS5, every term a string: nothing in it is an operator ("Full-text Query
    /// Syntax": a quote in a string is doubled).
    fn expression(&self, session_id: Option<&SessionId>) -> String {
        let quoted: Vec<String> =
            self.terms.iter().map(|term| format!("\"{}\"", term.replace('"', "\"\""))).collect();
        let text = format!("text : ({})", quoted.join(" AND "));
        match session_id {
            Some(id) => format!("session : \"{}\" AND {text}", session_word(id)),
            None => text,
        }
    }

    /// The text around the first word that was looked for, on one line.
    fn excerpt(&self, text: &str) -> String {
        let start = self.first_match(text).map_or(0, |found| found.start);
        let from = boundary_after(text, start.saturating_sub(EXCERPT_BYTES_BEFORE));
        let from = if from == 0 { 0 } else { word_start(text, from, start) };
        let to = boundary_before(text, (from + EXCERPT_BYTES_MAX).min(text.len()));
        let shown = text.get(from..to).unwrap_or_default();
        let line: Vec<&str> = shown.split_whitespace().collect();
        let (before, after) =
            (if from > 0 { "…" } else { "" }, if to < text.len() { "…" } else { "" });
        format!("{before}{}{after}", line.join(" "))
    }

    fn first_match(&self, text: &str) -> Option<Range<usize>> {
        let folded: Vec<String> = self
            .terms
            .iter()
            .flat_map(|term| words_of(term).map(|range| fold(term.get(range).unwrap_or_default())))
            .collect();
        words_of(text)
            .find(|range| folded.contains(&fold(text.get(range.clone()).unwrap_or_default())))
    }
}

/// Where the words of a text are: letters and digits that stand together.
fn words_of(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let rest = text.get(from..)?;
        let start = from + rest.find(char::is_alphanumeric)?;
        let word = text.get(start..)?;
        // An accent that stands behind its letter belongs to the word.
        let is_end = |c: char| !c.is_alphanumeric() && !is_mark(c);
        from = start + word.find(is_end).unwrap_or(word.len());
        Some(start..from)
    })
}

/// A word without its accents and in lower case, much as the tokenizer of the index has it.
fn fold(word: &str) -> String {
    word.nfd().filter(|c| !is_mark(*c)).flat_map(char::to_lowercase).collect()
}

/// Combining marks of the Latin, Greek and Cyrillic scripts (Unicode block 0300 to 036F).
fn is_mark(c: char) -> bool {
    ('\u{300}'..='\u{36F}').contains(&c)
}

fn boundary_before(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn boundary_after(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

/// Behind the first space between the two places, so that an excerpt begins with a whole word.
fn word_start(text: &str, from: usize, to: usize) -> usize {
    let between = text.get(from..to).unwrap_or_default();
    let space = between.char_indices().find(|(_, c)| c.is_whitespace());
    space.map_or(from, |(at, c)| from + at + c.len_utf8())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::database;
    use crate::project::SCHEMA;

    fn words(query: &str) -> Words {
        Words::parse(query).unwrap()
    }

    #[test]
    fn an_expression_is_made_of_strings_alone() {
        let session = SessionId::from_bits(7);
        assert_eq!(words("cat OR dog ").expression(None), r#"text : ("cat" AND "OR" AND "dog")"#);
        assert_eq!(words("a \"b").expression(None), r#"text : ("a" AND """b")"#);
        assert_eq!(
            words("text:foo* NEAR(").expression(None),
            r#"text : ("text:foo*" AND "NEAR(")"#
        );
        let expected = format!("session : \"{}\" AND text : (\"word\")", &session.as_str()[4..]);
        assert_eq!(words("word").expression(Some(&session)), expected);
    }

    #[test]
    fn a_query_without_a_word_or_with_too_many_bytes_is_refused() {
        for query in ["", "   ", "*", "\"\"", "- ( ) :", "\0", &"a".repeat(257)] {
            assert!(matches!(Words::parse(query), Err(StoreError::InvalidQuery { .. })), "{query}");
        }
    }

    #[test]
    fn an_excerpt_begins_near_the_match_and_keeps_to_its_size() {
        let long = format!("{} The Café is open. {}", "before ".repeat(40), "after ".repeat(60));
        let excerpt = words("cafe").excerpt(&long);
        assert!(excerpt.contains("The Café is open."), "{excerpt}");
        assert!(excerpt.starts_with("…before") && excerpt.ends_with('…'), "{excerpt}");
        assert!(excerpt.len() <= EXCERPT_BYTES_MAX + 2 * "…".len(), "{excerpt}");
        assert_eq!(words("open").excerpt("we\nare\n\nopen"), "we are open");
        assert_eq!(words("nowhere").excerpt("short"), "short");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn an_excerpt_of_any_text_is_a_piece_of_it(text in "\\PC{0,400}", query in "\\PC{1,20}") {
            let Ok(words) = Words::parse(&query) else { return Ok(()) };
            let excerpt = words.excerpt(&text);
            prop_assert!(excerpt.len() <= EXCERPT_BYTES_MAX + 2 * "…".len());
        }

        #[test]
        fn no_query_is_an_error_of_syntax(
            query in prop_oneof![
                "\\PC{0,40}",
                "[a-c\"'*:^(){}+, \\-\u{0}]{0,40}",
                "(AND|OR|NOT|NEAR|text|session|\"|\\(|\\)|\\*|:|\\+|\\^| |a){0,20}",
            ],
            in_session in any::<bool>(),
        ) {
            let mut conn = Connection::open_in_memory().unwrap();
            database::migrations(SCHEMA).to_latest(&mut conn).unwrap();
            let session_id = in_session.then(|| SessionId::from_bits(1));
            match search(&conn, &query, session_id.as_ref(), 10, None) {
                Ok(page) => prop_assert_eq!(page.hits.len(), 0),
                Err(error) => {
                    prop_assert!(matches!(error, StoreError::InvalidQuery { .. }), "{:?}", error);
                }
            }
        }
    }
}
