//! The forms in which a secret stands in text.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// Fewer characters of an encoded secret are found in ordinary text.
pub(crate) const FORM_BYTES_MIN: usize = 8;

/// All of them, the secret itself first. Of base64 those characters that depend on nothing around the secret,
/// for each of the three places that it can have in groups of three bytes (RFC 4648 section 4).
pub(crate) fn of(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    let in_json = serde_json::Value::from(secret).to_string();
    forms.push(in_json.trim_matches('"').to_owned());
    let in_url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    // A space is `+` in a query and `%20` in a path; letters of the codes are small in some programs.
    forms.push(in_url.replace('+', "%20"));
    forms.push(lower_codes(&in_url));
    forms.push(in_url);
    for engine in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let bytes = [vec![0; before], secret.as_bytes().to_vec()].concat();
            let text = engine.encode(&bytes);
            // The first characters hold bits of what stands before, a last one that is not full of what follows.
            let first = (before * 4).div_ceil(3);
            let last = text.len() - usize::from(bytes.len() % 3 != 0);
            forms.extend(text.get(first..last).map(str::to_owned));
        }
    }
    forms.retain(|form| form.len() >= FORM_BYTES_MIN);
    let mut seen = std::collections::HashSet::new();
    forms.retain(|form| seen.insert(form.clone()));
    forms
}

/// `%2F` as `%2f`.
fn lower_codes(text: &str) -> String {
    let mut parts = text.split('%');
    let mut lower = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        lower.push('%');
        lower.push_str(&code.to_ascii_lowercase());
        lower.push_str(rest);
    }
    lower
}
