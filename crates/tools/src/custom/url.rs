//! URLs of which path and query hold arguments of a call.

use iris_egress::parse_url;
use url::Url;

use super::template::{Arguments, Template, mistake, percent};
use super::{InvalidDefinition, invalid};
use crate::error::Mistake;

/// A URL of which path and query may hold arguments.
pub(super) struct UrlTemplate {
    /// Scheme, host and port, as a URL with the path `/`.
    pub(super) origin: Url,
    /// Between the `/` of the path.
    pub(super) segments: Vec<Template>,
    pub(super) query: Option<Template>,
}

/// Where requests of a URL template go: scheme, host and port. Secrets are bound to it.
///
/// # Errors
/// [`InvalidDefinition`].
pub fn origin_of(url: &str) -> Result<String, InvalidDefinition> {
    Ok(UrlTemplate::parse(url)?.origin.origin().ascii_serialization())
}

impl UrlTemplate {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidDefinition> {
        let bad = |problem: &str| invalid(format!("`http.url` {problem}"));
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(bad("must have no spaces, control characters and backslashes"));
        }
        if text.contains('#') {
            return Err(bad("must have no fragment: it would not be sent"));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad("must be an absolute http or https URL"));
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if [scheme, authority].iter().any(|part| part.contains(['{', '}'])) {
            return Err(bad("must have its scheme, host and port literally"));
        }
        let origin = parse_url(&format!("{scheme}://{authority}/"));
        let origin = origin.map_err(|error| bad(&format!("cannot be used: {error}")))?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(Template::parse("http.url", query)?)),
            None => (rest, None),
        };
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let segments = segments.map(|segment| Template::parse("http.url", segment));
        Ok(Self { origin, segments: segments.collect::<Result<_, _>>()?, query })
    }

    /// The URL of a call, with `fields` behind its own query.
    pub(super) fn render(&self, arguments: &Arguments, fields: &[String]) -> Result<Url, Mistake> {
        let mut text = self.origin.as_str().trim_end_matches('/').to_owned();
        for segment in &self.segments {
            let rendered = segment.render(arguments, percent)?.unwrap_or_default();
            // They cannot be encoded: a URL parser takes `%2e` for a dot.
            let dots = rendered.to_ascii_lowercase().replace("%2e", ".");
            if let Some(name) = segment.names().next()
                && matches!(dots.as_str(), "" | "." | "..")
            {
                return Err(mistake(name, "must not leave a part of the path empty, `.` or `..`"));
            }
            text.push('/');
            text.push_str(&rendered);
        }
        let own = self.query.as_ref().map(|query| query.render(arguments, percent)).transpose()?;
        let fields = own.flatten().into_iter().chain(fields.iter().cloned());
        let query = fields.collect::<Vec<_>>().join("&");
        if !query.is_empty() {
            text.push('?');
            text.push_str(&query);
        }
        let url = parse_url(&text).map_err(|error| mistake("", &error.to_string()))?;
        if url.origin() != self.origin.origin() {
            return Err(mistake("", "lead to another server"));
        }
        Ok(url)
    }
}
