//! Characters that a person cannot see, and texts shown without them.

use crate::piece::Reason;

/// Most bytes of a text that is shown; what follows is counted.
const SHOWN_BYTES_MAX: usize = 16 * 1024;

/// Letters and symbols that look like nothing, which the standard library calls printable.
///
/// Unicode 16.0, `PropList.txt`, `Other_Default_Ignorable_Code_Point`, and the blank of Braille.
const BLANK_LETTERS: &[char] = &['\u{115f}', '\u{1160}', '\u{2800}', '\u{3164}', '\u{ffa0}'];

/// What is hidden in `text`, if anything is.
pub(crate) fn hidden(text: &str) -> Option<Reason> {
    if text.contains('\0') {
        return Some(Reason::Nul);
    }
    text.chars().any(is_hidden).then_some(Reason::HiddenCharacters)
}

/// `text` with everything that cannot be seen escaped, cut after [`SHOWN_BYTES_MAX`] bytes.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (at, c) in text.char_indices() {
        if shown.len() >= SHOWN_BYTES_MAX {
            let left = text.len() - at;
            return format!("{shown}… ({left} more bytes)");
        }
        if is_hidden(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn is_hidden(c: char) -> bool {
    match c {
        '\t' | '\n' | ' '..='~' => false,
        // What the standard library escapes: control, format, unassigned and private characters,
        // marks that join the one before, and every blank but the space.
        c => BLANK_LETTERS.contains(&c) || c.escape_debug().nth(1).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_direction_or_has_no_width_is_hidden() {
        for c in ['\r', '\u{7}', '\u{1b}', '\u{a0}', '\u{ad}', '\u{200b}', '\u{200d}', '\u{202e}']
            .into_iter()
            .chain(['\u{2066}', '\u{2028}', '\u{3000}', '\u{feff}', '\u{fe0f}', '\u{e0041}'])
            .chain(BLANK_LETTERS.iter().copied())
        {
            assert_eq!(hidden(&format!("ls {c}")), Some(Reason::HiddenCharacters), "{c:?}");
        }
        assert_eq!(hidden("ls\0"), Some(Reason::Nul));
    }

    #[test]
    fn letters_of_all_languages_are_seen() {
        for text in ["ls -l\tx\ny", "grep 'größe' datei", "echo 日本語 привет مرحبا"]
        {
            assert_eq!(hidden(text), None, "{text}");
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn hidden_characters_are_shown_as_numbers() {
        assert_eq!(shown("a\u{202e}b\0"), "a\\u{202e}b\\u{0}");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let long = "x".repeat(SHOWN_BYTES_MAX + 7);
        let shown = shown(&long);
        assert!(shown.ends_with("x… (7 more bytes)"), "{}", shown.len());
    }
}
