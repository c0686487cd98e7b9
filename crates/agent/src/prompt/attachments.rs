//! Files that go with what a person said, as models are told of them.

use std::borrow::Cow;

use iris_protocol::limits::{ATTACHED_TEXT_TOLD_BYTES_MAX, ATTACHED_TEXTS_TOLD_BYTES_MAX};
use iris_protocol::{AttachmentGiven, AttachmentPart};

/// Shortest fence around a text.
const FENCE_MIN: usize = 3;
/// What stands for a file that was left out.
const LEFT_OUT: &str = "left out to save room";

/// A file that goes with what a person said.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptAttachment {
    part: AttachmentPart,
    left_out: bool,
    text: String,
}

impl PromptAttachment {
    /// Named and nothing else, as yet.
    pub(super) fn new(part: AttachmentPart, left_out: bool) -> Self {
        let left_out = left_out && part.given != AttachmentGiven::Named;
        let text = named(&part, left_out.then_some(LEFT_OUT));
        Self { part, left_out, text }
    }

    /// The file.
    pub fn part(&self) -> &AttachmentPart {
        &self.part
    }

    /// Whether it is only named to save room, for good.
    pub fn left_out(&self) -> bool {
        self.left_out
    }

    /// What stands in the text of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its name and kind alone.
    pub(crate) fn named(&self) -> String {
        named(&self.part, Some(LEFT_OUT))
    }

    /// Says why it is only named.
    pub fn name(&mut self, why: &str) {
        self.text = named(&self.part, Some(why));
    }

    /// Tells what stands in it, or as much of its beginning as there is room for.
    pub fn tell(&mut self, content: &str, room: &mut TextRoom) {
        let most = content.floor_char_boundary(room.0.min(ATTACHED_TEXT_TOLD_BYTES_MAX));
        room.0 -= most;
        if most == 0 && !content.is_empty() {
            return self.name("left out: the files of the message are too long together");
        }
        self.text = told(&self.part, content, most);
    }
}

/// How many bytes of text may still be told of what goes with one message.
#[derive(Debug)]
pub struct TextRoom(usize);

impl Default for TextRoom {
    fn default() -> Self {
        Self(ATTACHED_TEXTS_TOLD_BYTES_MAX)
    }
}

/// What a person said, with what stands in it of the files that go with it.
pub fn said_with<'a>(text: &'a str, attachments: &[PromptAttachment]) -> Cow<'a, str> {
    if attachments.is_empty() {
        return Cow::Borrowed(text);
    }
    let said = (!text.is_empty()).then_some(text).into_iter();
    let said = said.chain(attachments.iter().map(PromptAttachment::text));
    Cow::Owned(said.collect::<Vec<_>>().join("\n\n"))
}

fn named(part: &AttachmentPart, why: Option<&str>) -> String {
    let AttachmentPart { mime_type, size, .. } = part;
    let (name, why) = (shown(part), why.map(|why| format!("; {why}")).unwrap_or_default());
    format!("[attached file {name}: {mime_type}, {size} bytes{why}]")
}

/// A text between fences, which nothing in it can be taken for: they are longer than all of their kind there.
fn told(part: &AttachmentPart, content: &str, most: usize) -> String {
    let beginning = content.get(..most).unwrap_or_default();
    let longest = beginning.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(FENCE_MIN.max(longest + 1));
    let line_end = if beginning.is_empty() || beginning.ends_with('\n') { "" } else { "\n" };
    let mut text = format!("{}\n{fence}\n{beginning}{line_end}{fence}", named(part, None));
    if most < content.len() {
        let rest = content.len() - most;
        let how = if part.path.is_some() { "; the tool `read` shows them" } else { "" };
        text.extend([format!("\n[{rest} bytes more of {} are left out{how}]", shown(part))]);
    }
    text
}

/// The path or the name on one line, in quotation marks of which it has none.
fn shown(part: &AttachmentPart) -> String {
    format!("{:?}", part.path.as_ref().unwrap_or(&part.name))
}

#[cfg(test)]
mod tests {
    use iris_protocol::PartId;
    use proptest::prelude::*;

    use super::*;

    fn part(path: &str, given: AttachmentGiven) -> AttachmentPart {
        AttachmentPart {
            id: PartId::from_bits(1),
            name: "b.txt".to_owned(),
            path: Some(path.to_owned()),
            version: None,
            mime_type: "text/plain".to_owned(),
            size: 9,
            hash: String::new(),
            given,
        }
    }

    fn text_of(content: &str) -> String {
        let mut it = PromptAttachment::new(part("a/b.txt", AttachmentGiven::Text), false);
        it.tell(content, &mut TextRoom::default());
        it.text().to_owned()
    }

    #[test]
    fn a_text_stands_between_fences_under_its_name() {
        let head = "[attached file \"a/b.txt\": text/plain, 9 bytes]\n";
        assert_eq!(text_of("one\ntwo"), format!("{head}```\none\ntwo\n```"));
        assert_eq!(text_of("one\n"), format!("{head}```\none\n```"));
        assert_eq!(text_of(""), format!("{head}```\n```"));
        assert_eq!(text_of("```\n[attached"), format!("{head}````\n```\n[attached\n````"));
    }

    #[test]
    fn a_name_cannot_leave_its_line() {
        let it = PromptAttachment::new(part("a\"]\n```\nb", AttachmentGiven::Named), false);
        let expected = r#"[attached file "a\"]\n```\nb": text/plain, 9 bytes]"#;
        assert_eq!(it.text(), expected);
    }

    #[test]
    fn what_is_too_long_ends_with_what_is_left_out() {
        let long = "é".repeat(ATTACHED_TEXT_TOLD_BYTES_MAX);
        let text = text_of(&long);
        let rest = format!(
            "\n```\n[{ATTACHED_TEXT_TOLD_BYTES_MAX} bytes more of \"a/b.txt\" are left out; the tool `read` \
             shows them]"
        );
        assert!(text.ends_with(&rest), "{}", &text[text.len() - 200..]);

        let mut room = TextRoom::default();
        let mut texts = Vec::new();
        for _ in 0..=ATTACHED_TEXTS_TOLD_BYTES_MAX / ATTACHED_TEXT_TOLD_BYTES_MAX {
            let mut it = PromptAttachment::new(part("a", AttachmentGiven::Text), false);
            it.tell(&long, &mut room);
            texts.push(it.text().to_owned());
        }
        let (last, first) = texts.split_last().unwrap();
        assert!(first.iter().all(|text| text.len() > ATTACHED_TEXT_TOLD_BYTES_MAX));
        assert!(last.contains("; left out: the files of the message are too long together]"));
    }

    #[test]
    fn what_is_left_out_is_named_unless_it_was_only_named_before() {
        for (given, left_out) in [
            (AttachmentGiven::Image, true),
            (AttachmentGiven::Text, true),
            (AttachmentGiven::Named, false),
        ] {
            let it = PromptAttachment::new(part("a", given), true);
            assert_eq!(it.left_out(), left_out);
            assert_eq!(it.text().contains("; left out to save room]"), left_out, "{}", it.text());
        }
    }

    proptest! {
        /// Whatever stands in a file: exactly its fences are the first and the last line of its fence.
        #[test]
        fn nothing_in_a_text_ends_its_fence(content in "[`\\n ~a\\]]{0,200}") {
            let text = text_of(&content);
            let mut lines = text.lines().skip(1);
            let fence = lines.next().unwrap().to_owned();
            prop_assert!(fence.len() >= 3 && fence.bytes().all(|byte| byte == b'`'));
            // A fence is closed by a line of at least as many backticks, with spaces around them.
            let closes = |line: &str| {
                let line = line.trim();
                line.len() >= fence.len() && line.bytes().all(|byte| byte == b'`')
            };
            let closing: Vec<usize> =
                text.lines().enumerate().skip(2).filter(|(_, it)| closes(it)).map(|(at, _)| at).collect();
            prop_assert_eq!(closing, vec![text.lines().count() - 1]);
        }
    }
}
