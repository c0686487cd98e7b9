//! Checking a call's arguments against the tool's schema, with a pointer to each mistake.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use crate::error::{Mistake, ToolError};

/// Largest arguments of a call, in bytes of JSON.
pub const INPUT_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of arguments; an object without nested ones is 1 deep.
pub const INPUT_DEPTH_MAX: usize = 32;
/// Most mistakes that one error names.
pub const MISTAKES_MAX: usize = 5;
/// How much of a property's name an error repeats, in characters.
const NAME_CHARS_MAX: usize = 80;

/// Compiles a schema. Patterns in it are of the kind that takes no more time than the text is long: schemas
/// come from strangers too.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn compiled(parameters: &Value) -> Result<Validator, String> {
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex());
    options.build(parameters).map_err(|error| error.to_string())
}

/// Whether a tool could have these parameters.
///
/// # Errors
///
/// What is wrong with the schema, the beginning of it.
pub fn check_parameters(parameters: &Value) -> Result<(), String> {
    const PROBLEM_CHARS_MAX: usize = 500;
    let problem = compiled(parameters).err();
    problem.map_or(Ok(()), |problem| Err(problem.chars().take(PROBLEM_CHARS_MAX).collect()))
}

/// Checks `input` against the compiled schema of `tool`.
pub(crate) fn validate(tool: &str, schema: &Validator, input: &Value) -> Result<(), ToolError> {
    if !is_shallow(input) || input.to_string().len() > INPUT_BYTES_MAX {
        return Err(ToolError::InputTooLarge { tool: tool.to_owned() });
    }
    let mut mistakes: Vec<Mistake> =
        schema.iter_errors(input).flat_map(|error| mistakes_of(&error)).collect();
    if mistakes.is_empty() {
        return Ok(());
    }
    mistakes.truncate(MISTAKES_MAX);
    Err(ToolError::InvalidInput { tool: tool.to_owned(), mistakes })
}

/// The beginning of a name, for error messages.
pub(crate) fn shortened(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}

/// Whether a value nests no deeper than arguments may, so that it can be stored and read again.
pub fn is_shallow(value: &Value) -> bool {
    is_within(value, INPUT_DEPTH_MAX)
}

fn is_within(value: &Value, depth_left: usize) -> bool {
    match value {
        Value::Array(items) => {
            depth_left > 0 && items.iter().all(|item| is_within(item, depth_left - 1))
        }
        Value::Object(fields) => {
            depth_left > 0 && fields.values().all(|field| is_within(field, depth_left - 1))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

/// What is wrong with a text of more than `most` bytes: a schema counts characters.
pub(crate) fn too_long(pointer: String, text: &str, most: usize) -> Option<Mistake> {
    let problem = || format!("is wrong: it is longer than {most} bytes");
    (text.len() > most).then(|| Mistake { pointer, problem: problem() })
}

fn mistakes_of(error: &ValidationError<'_>) -> Vec<Mistake> {
    let parent = error.instance_path().as_str();
    let child = |name: &str, problem: &str| Mistake {
        pointer: format!("{parent}/{}", shortened(name).replace('~', "~0").replace('/', "~1")),
        problem: problem.to_owned(),
    };
    if let ValidationErrorKind::Required { property: Value::String(name) } = error.kind() {
        return vec![child(name, "is required and missing")];
    }
    if let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
        return unexpected.iter().map(|name| child(name, "is not a parameter")).collect();
    }
    // The value itself may be long, and the model knows it.
    let problem = error.masked_with("the value").to_string();
    vec![Mistake { pointer: parent.to_owned(), problem: format!("is wrong: {problem}") }]
}
