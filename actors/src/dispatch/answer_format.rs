//! What the answer to a message has to look like, as its sender says it.

use iris_protocol::{AnswerFormatPart, ApiError, Content, ContentPart, PartId};
use iris_tools::check_schema;

/// What the provider is told that an answer is called whose sender says nothing.
const NAME_DEFAULT: &str = "answer";
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What `content` asks of the answer, checked.
///
/// # Errors
/// `INVALID_REQUEST` with the reason `invalid_answer_format`.
pub(super) fn answer_format(
    content: &Content,
    id: PartId,
) -> Result<Option<AnswerFormatPart>, ApiError> {
    let Content::Parts(parts) = content else { return Ok(None) };
    let mut formats = parts.iter().filter_map(|part| match part {
        ContentPart::AnswerFormat { name, schema, strict } => Some((name, schema, strict)),
        ContentPart::Text { .. } => None,
    });
    let Some((name, schema, strict)) = formats.next() else { return Ok(None) };
    if formats.next().is_some() {
        return Err(invalid("`content` has more than one part `answerFormat`"));
    }
    let name = name.as_deref().unwrap_or(NAME_DEFAULT);
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_name {
        let problem = format!(
            "`name` of `answerFormat` must be 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`"
        );
        return Err(invalid(problem));
    }
    check_schema("schema", schema).map_err(|error| invalid(error.to_string()))?;
    let (name, schema) = (name.to_owned(), schema.clone());
    Ok(Some(AnswerFormatPart { id, name, schema, strict: strict.unwrap_or(true) }))
}

fn invalid(problem: impl Into<String>) -> ApiError {
    ApiError::invalid(problem.into()).reason("invalid_answer_format")
}
