//! A tool that makes one HTTP request.
//!
//! Where it goes is literal in its definition: arguments fill in segments of the path, values of the query
//! and of headers, and the body, each encoded for its place, and never change scheme, host or port.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use iris_agent::permissions::Access;
use iris_egress::{Egress, Request};
use iris_protocol::limits::SECRET_HEADERS_MAX;
use iris_protocol::{HttpMethod, HttpTool, ToolKind};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::body::{filled, names_in};
use super::template::{Arguments, Template, percent, plain};
use super::url::UrlTemplate;
use super::{About, InvalidDefinition, SecretHeader, invalid};
use crate::Tool;
use crate::builtin::{CancelOnDrop, shown};
use crate::context::ToolContext;
use crate::error::{Mistake, ToolError};
use crate::output::ToolOutput;
use crate::webfetch::{host, may_reach, read};

/// The longest that a request may take, in milliseconds: no request out takes longer.
pub const HTTP_TIMEOUT_MS_MAX: u64 = 30_000;
/// How much of an answer is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// What a call may take beyond its timeout.
const AFTER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most fields of a query, and most headers that are no secrets.
const FIELDS_MAX: usize = 64;
/// What stands where a secret would.
const BLOT: &str = "[secret]";
/// The shortest word of a secret that is blotted out by itself, as in `Bearer <word>`.
const WORD_BYTES_MIN: usize = 8;

/// A tool that makes one request.
pub(super) struct Http {
    about: About,
    method: HttpMethod,
    url: UrlTemplate,
    query: Vec<(String, Template)>,
    headers: Vec<(String, Template)>,
    body: Option<Value>,
    secrets: Vec<SecretHeader>,
    timeout: Duration,
    egress: Option<Arc<Egress>>,
}

impl Http {
    /// Checks all of the definition: with arguments in their places it has to make a request.
    pub(super) fn new(
        about: About,
        http: &HttpTool,
        secrets: Vec<SecretHeader>,
        egress: Option<Arc<Egress>>,
    ) -> Result<Self, InvalidDefinition> {
        if !(1..=HTTP_TIMEOUT_MS_MAX).contains(&http.timeout_ms) {
            let problem = format!("`http.timeoutMs` must be 1 to {HTTP_TIMEOUT_MS_MAX}");
            return Err(invalid(problem));
        }
        if http.body.is_some() && http.method == HttpMethod::Get {
            return Err(invalid("`http.body` cannot be sent with `GET`"));
        }
        if http.query.len() > FIELDS_MAX || http.headers.len() > FIELDS_MAX {
            let problem = format!("`http` has more than {FIELDS_MAX} headers or fields of a query");
            return Err(invalid(problem));
        }
        if secrets.len() > SECRET_HEADERS_MAX {
            let problem = format!("`http` has more than {SECRET_HEADERS_MAX} secret headers");
            return Err(invalid(problem));
        }
        let tool = Self {
            method: http.method,
            url: UrlTemplate::parse(&http.url)?,
            query: templates("http.query", &http.query)?,
            headers: templates("http.headers", &http.headers)?,
            body: http.body.clone(),
            secrets,
            timeout: Duration::from_millis(http.timeout_ms),
            egress,
            about,
        };
        tool.check_arguments()?;
        tool.check_headers()?;
        let example = tool.arguments_named()?.into_iter();
        let example = example.map(|name| (name, Value::String("x".to_owned()))).collect();
        let request = tool.request(&example);
        request.map_err(|error| invalid(format!("`http` makes no request: {error}")))?;
        Ok(tool)
    }

    /// Every argument that the request names.
    fn arguments_named(&self) -> Result<BTreeSet<String>, InvalidDefinition> {
        let templates = self.url.segments.iter().chain(&self.url.query);
        let fields = self.query.iter().chain(&self.headers).map(|(_, template)| template);
        let mut names: BTreeSet<String> =
            templates.chain(fields).flat_map(Template::names).map(str::to_owned).collect();
        if let Some(body) = &self.body {
            names_in(body, &mut names)?;
        }
        Ok(names)
    }

    /// An argument that stands in the request is a property of the schema; one in the path is required.
    fn check_arguments(&self) -> Result<(), InvalidDefinition> {
        let parameters = &self.about.parameters;
        let properties = parameters.get("properties").and_then(Value::as_object);
        for name in self.arguments_named()? {
            if !properties.is_some_and(|properties| properties.contains_key(&name)) {
                let problem = "is not among the `properties` of `parameters`";
                return Err(invalid(format!("`http` has the argument `{name}`, which {problem}")));
            }
        }
        let required = parameters.get("required").and_then(Value::as_array);
        for name in self.url.segments.iter().flat_map(Template::names) {
            let is_it = |value: &Value| value.as_str() == Some(name);
            if !required.is_some_and(|required| required.iter().any(is_it)) {
                let problem = "which `parameters` has to name as `required`";
                return Err(invalid(format!(
                    "the path of `http.url` has the argument `{name}`, {problem}"
                )));
            }
        }
        Ok(())
    }

    /// No header stands there twice.
    fn check_headers(&self) -> Result<(), InvalidDefinition> {
        let plain = self.headers.iter().map(|(name, _)| name);
        let mut seen = BTreeSet::new();
        for name in plain.chain(self.secrets.iter().map(|secret| &secret.name)) {
            if !seen.insert(name.to_ascii_lowercase()) {
                return Err(invalid(format!("`http` has the header `{}` twice", shown_name(name))));
            }
        }
        Ok(())
    }

    fn url(&self, arguments: &Arguments) -> Result<Url, Mistake> {
        let mut fields = Vec::new();
        for (name, template) in &self.query {
            if let Some(value) = template.render(arguments, percent)? {
                fields.push(format!("{}={value}", percent(name)));
            }
        }
        self.url.render(arguments, &fields)
    }

    /// The request of a call, with what is secret in it.
    fn request(&self, arguments: &Arguments) -> Result<Request, ToolError> {
        let wrong = |mistake: Mistake| self.wrong(mistake);
        let url = self.url(arguments).map_err(wrong)?;
        let mut request = Request::new(self.method.as_str(), url.as_str())?;
        request = request.timeout(self.timeout).body_bytes_max(ANSWER_BYTES_MAX);
        let mut has_type = false;
        for (name, template) in &self.headers {
            if let Some(value) = template.render(arguments, plain).map_err(wrong)? {
                has_type |= name.eq_ignore_ascii_case("content-type");
                request = request.header(name, &value)?;
            }
        }
        for SecretHeader { name, value } in &self.secrets {
            // One that is lost is said by `unavailable`.
            let value = value.as_ref().map_or(BLOT, |value| value.as_str());
            request = request.header(name, value)?;
        }
        if let Some(body) = &self.body {
            let body = filled(body, arguments).map_err(wrong)?.unwrap_or(Value::Null);
            if !has_type {
                request = request.header("content-type", "application/json")?;
            }
            request = request.body(body.to_string());
        }
        Ok(request)
    }

    fn wrong(&self, mistake: Mistake) -> ToolError {
        ToolError::InvalidInput { tool: self.about.name.clone(), mistakes: vec![mistake] }
    }

    /// What must not come back: whole secrets and their longer words.
    fn blots(&self) -> Vec<Zeroizing<String>> {
        let values = self.secrets.iter().filter_map(|secret| secret.value.as_ref());
        let mut blots: Vec<Zeroizing<String>> = Vec::new();
        for value in values {
            let words = value.split_ascii_whitespace().filter(|word| word.len() >= WORD_BYTES_MIN);
            blots.push(value.clone());
            blots.extend(words.map(|word| Zeroizing::new(word.to_owned())));
        }
        blots.sort_by_key(|blot| std::cmp::Reverse(blot.len()));
        blots
    }
}

impl Tool for Http {
    fn name(&self) -> &str {
        &self.about.name
    }

    fn description(&self) -> &str {
        &self.about.description
    }

    fn parameters(&self) -> &Value {
        &self.about.parameters
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Http
    }

    fn writes(&self) -> bool {
        self.method != HttpMethod::Get
    }

    fn unavailable(&self) -> Option<ToolError> {
        if self.egress.is_none() {
            return Some(ToolError::NoWayOut);
        }
        let lost = self.secrets.iter().find(|secret| secret.value.is_none())?;
        Some(ToolError::SecretLost { header: lost.name.clone() })
    }

    fn time_limit(&self, _: &Value) -> Option<Duration> {
        Some(self.timeout + AFTER_TIMEOUT)
    }

    /// What the schema cannot say: that the arguments make a request.
    fn check(&self, input: &Value) -> Result<(), ToolError> {
        self.request(&arguments(input)).map(drop)
    }

    /// The host, like that of a page: the tool itself says the rest.
    fn accesses(&self, _: &Value) -> Vec<Access> {
        vec![Access::of(self.about.name.clone(), host(&self.url.origin))]
    }

    fn summary(&self, input: &Value) -> String {
        let what = self.about.summary();
        match self.url(&arguments(input)) {
            Ok(url) => format!("{what}: {} {}", self.method.as_str(), shown(url.as_str())),
            Err(_) => format!("{what} with invalid arguments"),
        }
    }

    fn run(
        &self,
        ctx: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        let prepared = match self.unavailable() {
            Some(error) => Err(error),
            None => self.request(&arguments(&input)),
        };
        let (egress, blots) = (self.egress.clone(), Arc::new(self.blots()));
        let (name, named) = (self.about.name.clone(), self.url.origin.clone());
        let guard = CancelOnDrop(ctx.cancel().clone());
        Box::pin(async move {
            let _guard = guard;
            let (request, egress) = (prepared?, egress.ok_or(ToolError::NoWayOut)?);
            let (judge, permission) = (Arc::clone(&ctx.judge), name.clone());
            let follows =
                move |url: &Url| url.host() == named.host() || may_reach(&judge, &permission, url);
            let fetched = egress.fetch(request.follow_if(follows)).await;
            let response = fetched.map_err(|error| without(&blots, error.into()))?;
            let known = Arc::clone(&blots);
            let work =
                tokio::task::spawn_blocking(move || read(&response, &|t| blotted(t, &known)));
            match work.await {
                Ok(result) => result.map_err(|error| without(&blots, error)),
                Err(error) if error.is_panic() => Err(ToolError::Crashed { tool: name }),
                Err(_) => Err(ToolError::Cancelled),
            }
        })
    }
}

/// What went wrong, without what is secret: whoever answers may have said it back.
fn without(blots: &[Zeroizing<String>], error: ToolError) -> ToolError {
    let text = error.to_string();
    let problem = blotted(&text, blots).into_owned();
    if problem == text { error } else { ToolError::Request { problem } }
}

fn blotted<'a>(text: &'a str, blots: &[Zeroizing<String>]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for blot in blots {
        if text.contains(blot.as_str()) {
            text = Cow::Owned(text.replace(blot.as_str(), BLOT));
        }
    }
    text
}

fn arguments(input: &Value) -> Arguments {
    input.as_object().cloned().unwrap_or_default()
}

fn templates(
    field: &str,
    texts: &BTreeMap<String, String>,
) -> Result<Vec<(String, Template)>, InvalidDefinition> {
    let parsed = texts.iter().map(|(name, text)| {
        let field = format!("{field}.{}", shown_name(name));
        Ok((name.clone(), Template::parse(&field, text)?))
    });
    parsed.collect()
}

/// A name in an error, whatever somebody wrote there.
fn shown_name(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}
