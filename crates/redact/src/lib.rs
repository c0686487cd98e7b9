//! Hides secrets in text that is shown, kept or logged: those that the process knows, in the forms in which
//! they travel, and what looks like a secret of a well-known kind.
//!
//! A secret is known once somebody [`learn`](Redactor::learn)s it: whoever opens one to use it. Known secrets
//! stay in the memory of the process, a bounded number of them, because they have to be compared with.
//!
//! Deliberately absent: what people and models write. That is theirs, and is kept as it is.

mod forms;
mod known;
mod lines;
mod patterns;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use serde_json::Value;

use known::Known;
pub use lines::Masked;

/// Shorter texts are ordinary words, as far as a user chose them.
const CHOSEN_BYTES_MIN: usize = 12;

/// Stands in the place of a secret.
pub const MARK: &str = "[redacted secret]";

/// What knows secrets and hides them.
#[derive(Default)]
pub struct Redactor {
    known: Known,
    /// Knows more, and hides that too.
    wider: Option<&'static Redactor>,
}

/// The one of this process, for the secrets of those who run it: what it knows is hidden from everybody, in
/// log lines too.
pub fn shared() -> &'static Redactor {
    static SHARED: LazyLock<Redactor> = LazyLock::new(Redactor::default);
    &SHARED
}

impl Redactor {
    /// One that hides what [`shared`] hides, and besides what it is told itself.
    pub fn within_shared() -> Self {
        Self { known: Known::default(), wider: Some(shared()) }
    }

    /// Hides a secret from now on: as it is, in base64 (also within a longer text that is encoded), as it
    /// stands in a URL and in JSON. Of a header's value such as `Bearer x` also what follows the scheme.
    /// One of fewer than eight bytes is left alone: it would be found in ordinary words.
    pub fn learn(&self, secret: &str) {
        self.known.learn(secret);
        if let Some((scheme, rest)) = secret.split_once(' ')
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            self.known.learn(rest.trim());
        }
    }

    /// Hides a secret that a user chose, as [`learn`](Self::learn) does, if it looks like one: twelve bytes or
    /// more with letters and digits. Else they could hide words of their choice from those who work with them.
    pub fn learn_chosen(&self, secret: &str) {
        let has = |is_it: fn(&u8) -> bool| secret.as_bytes().iter().any(is_it);
        let looks_like_one = secret.len() >= CHOSEN_BYTES_MIN
            && has(u8::is_ascii_alphabetic)
            && has(u8::is_ascii_digit);
        if looks_like_one {
            self.learn(secret);
        }
    }

    /// The text with [`MARK`] in the place of each secret.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        // The wider one first: no secret of a few breaks up one that is hidden from all.
        let masked = match self.wider {
            Some(wider) => wider.mask(text),
            None => patterns::mask(text),
        };
        match masked {
            Cow::Borrowed(text) => self.known.mask(text),
            Cow::Owned(masked) => Cow::Owned(self.known.mask(&masked).into_owned()),
        }
    }

    /// The same for a piece of a longer text, such as the newest lines of an output: known secrets that are
    /// cut off at its beginning or at its end are hidden too.
    pub fn mask_piece<'t>(&self, piece: &'t str) -> Cow<'t, str> {
        let whole = self.within_cuts(piece);
        let is_cut = whole.len() != piece.len();
        let (start, end) = (whole.start, whole.end);
        let masked = self.mask(piece.get(whole).unwrap_or_default());
        if !is_cut {
            return masked;
        }
        let mut text = String::with_capacity(masked.len() + 2 * MARK.len());
        text.push_str(if start > 0 { MARK } else { "" });
        text.push_str(&masked);
        text.push_str(if end < piece.len() { MARK } else { "" });
        Cow::Owned(text)
    }

    fn within_cuts(&self, piece: &str) -> Range<usize> {
        let own = self.known.within_cuts(piece);
        let Some(wider) = self.wider else { return own };
        let wider = wider.known.within_cuts(piece);
        let start = own.start.max(wider.start);
        start..own.end.min(wider.end).max(start)
    }

    /// Hides secrets in a text, which stays as it is if there are none.
    pub fn mask_in(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.mask(text) {
            *text = masked;
        }
    }

    /// Hides secrets in all texts of a value, keys included.
    pub fn mask_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.mask_in(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_value(item)),
            Value::Object(fields) => {
                let is_told = |key: &String| matches!(self.mask(key), Cow::Owned(_));
                if fields.keys().any(is_told) {
                    let renamed = std::mem::take(fields).into_iter();
                    *fields = renamed.map(|(k, v)| (self.mask(&k).into_owned(), v)).collect();
                }
                fields.values_mut().for_each(|value| self.mask_value(value));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SECRET: &str = "pa$$w0rd/of+the\"house";

    fn knowing(secret: &str) -> Redactor {
        let redactor = Redactor::default();
        redactor.learn(secret);
        redactor
    }

    #[test]
    fn a_known_secret_is_hidden_in_every_form_in_which_it_travels() {
        let redactor = knowing(SECRET);
        let forms = [
            SECRET.to_owned(),
            json!(SECRET).to_string(),
            url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect(),
            BASE64_STANDARD.encode(SECRET),
            BASE64_URL_SAFE_NO_PAD.encode(SECRET),
        ];
        for form in forms {
            let masked = redactor.mask(&format!("before {form} after")).into_owned();
            assert!(masked.contains(MARK) && masked.starts_with("before "), "{form}: {masked}");
            assert!(masked.ends_with(" after") && masked.len() < form.len() + 40, "{masked}");
        }
        assert_eq!(redactor.mask("nothing of it"), "nothing of it");
    }

    #[test]
    fn what_follows_the_scheme_of_a_header_is_a_secret_by_itself() {
        let redactor = knowing("Token 0123456789");
        assert_eq!(redactor.mask("it is 0123456789"), format!("it is {MARK}"));
    }

    #[test]
    fn short_secrets_would_hide_ordinary_words() {
        assert_eq!(knowing("demo").mask("a demo"), "a demo");
    }

    #[test]
    fn what_users_choose_is_hidden_only_if_it_looks_like_a_secret() {
        let redactor = Redactor::default();
        for word in ["permission", "permission denied", "2026-11-29 12:00", "abc123"] {
            redactor.learn_chosen(word);
            assert_eq!(redactor.mask(word), word);
        }
        redactor.learn_chosen("Bearer a1b2c3d4e5f6");
        assert_eq!(redactor.mask("it is a1b2c3d4e5f6"), format!("it is {MARK}"));
    }

    #[test]
    fn what_all_hide_one_hides_too_but_not_the_other_way_round() {
        shared().learn("canary-of-everybody");
        let narrow = Redactor::within_shared();
        narrow.learn("canary-of-a-few");
        let text = "canary-of-everybody canary-of-a-few";
        assert_eq!(narrow.mask(text), format!("{MARK} {MARK}"));
        assert_eq!(shared().mask(text), format!("{MARK} canary-of-a-few"));
        assert_eq!(narrow.mask_piece("everybody canary-of"), format!("{MARK} {MARK}"));
        // A few cannot break up what is hidden from all.
        narrow.learn("canary-of-every");
        assert_eq!(narrow.mask("canary-of-everybody"), MARK);
    }

    #[test]
    fn a_piece_shows_nothing_of_a_secret_that_is_cut_off() {
        let redactor = knowing("0123456789abcdef");
        for cut in 1..16 {
            let (head, tail) = "0123456789abcdef".split_at(cut);
            let masked = redactor.mask_piece(&format!("x {head}")).into_owned();
            assert_eq!(masked, if cut < 4 { format!("x {head}") } else { format!("x {MARK}") });
            let masked = redactor.mask_piece(&format!("{tail} x")).into_owned();
            assert_eq!(masked, if cut > 12 { format!("{tail} x") } else { format!("{MARK} x") });
        }
        assert_eq!(redactor.mask_piece("0123456789abcdef"), MARK);
        assert_eq!(redactor.mask_piece(""), "");
    }

    #[test]
    fn every_text_of_a_value_is_looked_at() {
        let mut value = json!({ "a": ["x 0123456789", 1, null], "0123456789": { "b": true } });
        knowing("0123456789").mask_value(&mut value);
        let expected = json!({ "a": [format!("x {MARK}"), 1, null], MARK: { "b": true } });
        assert_eq!(value, expected);
    }

    #[test]
    fn only_so_many_are_remembered_and_the_newest_ones_are() {
        let redactor = Redactor::default();
        let secret = |n: usize| format!("secret-number-{n:05}");
        for n in 0..known::SECRETS_MAX + 10 {
            redactor.learn(&secret(n));
        }
        redactor.learn("the-last-one");
        assert_eq!(redactor.mask(&secret(0)), secret(0));
        assert_eq!(redactor.mask(&secret(known::SECRETS_MAX)), MARK);
        assert_eq!(redactor.mask("the-last-one"), MARK);
    }

    proptest! {
        #[test]
        fn no_text_around_it_shows_a_secret(
            secret in "[!-~]{8,40}", before in "\\PC{0,20}", after in "\\PC{0,20}",
        ) {
            let redactor = knowing(&secret);
            let text = format!("{before}{secret}{after}");
            prop_assert!(!redactor.mask(&text).contains(&secret) || MARK.contains(&secret));
            // Somewhere in what is encoded together.
            let encoded = BASE64_STANDARD.encode(format!("user:{text}"));
            let masked = redactor.mask(&encoded).into_owned();
            prop_assert!(masked.contains(MARK), "{encoded} {masked}");
        }

        #[test]
        fn text_is_never_broken(secret in "\\PC{8,20}", text in "\\PC{0,200}") {
            let redactor = knowing(&secret);
            redactor.mask(&text);
            redactor.mask_piece(&text);
        }
    }
}
