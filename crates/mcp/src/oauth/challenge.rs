//! What a server says when it refuses (RFC 9110 section 11.6.1, RFC 6750 section 3, RFC 9728 section 5.1).

/// The parameters of a challenge for bearer tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// Where the server describes itself.
    pub resource_metadata: Option<String>,
    /// The scopes that are needed, separated by spaces.
    pub scope: Option<String>,
    /// Why it refused, such as `insufficient_scope`.
    pub error: Option<String>,
}

impl Challenge {
    /// Reads the value of a `WWW-Authenticate` header; what is no challenge for bearer tokens is skipped.
    pub fn read(header: &str) -> Self {
        let mut challenge = Self::default();
        let mut is_bearer = false;
        let mut rest = header;
        loop {
            // What is left begins with a name or `=`, so that each turn takes something off.
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | '='));
            let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
            if rest.is_empty() {
                return challenge;
            }
            let Some(text) = after.trim_start().strip_prefix('=') else {
                is_bearer = name.eq_ignore_ascii_case("bearer");
                rest = after;
                continue;
            };
            let (value, after) = value_of(text.trim_start());
            if is_bearer {
                challenge.take(name, value);
            }
            rest = after;
        }
    }

    /// The first one counts.
    fn take(&mut self, name: &str, value: String) {
        let field = match name.to_ascii_lowercase().as_str() {
            "resource_metadata" => &mut self.resource_metadata,
            "scope" => &mut self.scope,
            "error" => &mut self.error,
            _ => return,
        };
        field.get_or_insert(value);
    }
}

/// A value, in quotes or not, and what stands behind it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        return (value.to_owned(), after);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, quoted.get(at + 1..).unwrap_or_default()),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_challenge_for_bearer_tokens_is_found_among_others() {
        let header = r#"Basic realm="a, b", Bearer realm="x\"y", error=insufficient_scope,
            scope="read write" , resource_metadata="https://a.example/m?x=1,2""#;
        let expected = Challenge {
            resource_metadata: Some("https://a.example/m?x=1,2".to_owned()),
            scope: Some("read write".to_owned()),
            error: Some("insufficient_scope".to_owned()),
        };
        assert_eq!(Challenge::read(header), expected);
        assert_eq!(Challenge::read(r#"DPoP scope="a""#), Challenge::default());
        assert_eq!(Challenge::read("Bearer"), Challenge::default());
        assert_eq!(Challenge::read(r#"bearer scope="open"#).scope.as_deref(), Some("open"));
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_read(header in "\\PC{0,200}", odd in "[=,\" \\\\bearer\u{a0}\n]{0,80}") {
            Challenge::read(&header);
            Challenge::read(&odd);
        }
    }
}
