//! `question`: asks the people of the session. A call waits for their answers, which are its result, and
//! never runs.

use futures_util::future::BoxFuture;
use iris_agent::permissions::{Access, Target};
use iris_protocol::QuestionItem;
use iris_protocol::limits::{
    NAME_BYTES_MAX, QUESTION_OPTIONS_MAX, QUESTION_TEXT_BYTES_MAX, QUESTIONS_MAX,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Tool;
use crate::builtin::{object_schema, parse, shown};
use crate::context::ToolContext;
use crate::error::{Mistake, ToolError};
use crate::output::ToolOutput;
use crate::validation::{MISTAKES_MAX, too_long};

const NAME: &str = "question";
const DESCRIPTION: &str = "Asks the people of the session and waits for their answers. Ask only \
                           what the files cannot tell and what decides how to go on; ask \
                           everything at once.";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    questions: Vec<QuestionItem>,
}

pub(crate) struct Question {
    parameters: Value,
}

/// The tool `question`.
pub(crate) fn tool() -> Question {
    let text = |most: usize| json!({"type": "string", "minLength": 1, "maxLength": most});
    let option = object_schema(
        &json!({
            "label": text(NAME_BYTES_MAX),
            "description": {"type": "string", "maxLength": QUESTION_TEXT_BYTES_MAX},
        }),
        &["label"],
    );
    let question = object_schema(
        &json!({
            "text": text(QUESTION_TEXT_BYTES_MAX),
            "options": {
                "type": "array",
                "maxItems": QUESTION_OPTIONS_MAX,
                "items": option,
                "description": "Answers to choose from; people may also write one of their own",
            },
            "multiple": {
                "type": "boolean",
                "description": "Whether several answers may be given, by default one",
            },
        }),
        &["text"],
    );
    let questions = json!({
        "questions": {"type": "array", "minItems": 1, "maxItems": QUESTIONS_MAX, "items": question},
    });
    Question { parameters: object_schema(&questions, &["questions"]) }
}

impl Tool for Question {
    fn name(&self) -> &str {
        NAME
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn writes(&self) -> bool {
        false
    }

    fn accesses(&self, _: &Value) -> Vec<Access> {
        vec![Access::of(NAME, Target::Text(String::new()))]
    }

    fn summary(&self, input: &Value) -> String {
        let first = input.pointer("/questions/0/text").and_then(Value::as_str);
        format!("ask {}", shown(first.unwrap_or_default()))
    }

    fn asks(&self, input: &Value) -> Result<Option<Vec<QuestionItem>>, ToolError> {
        let Input { questions } = parse(NAME, input)?;
        let mut mistakes = Vec::new();
        for (index, question) in questions.iter().enumerate() {
            check(&format!("/questions/{index}"), question, &mut mistakes);
        }
        if mistakes.is_empty() {
            return Ok(Some(questions));
        }
        mistakes.truncate(MISTAKES_MAX);
        Err(ToolError::InvalidInput { tool: NAME.to_owned(), mistakes })
    }

    fn run(&self, _: ToolContext, _: Value) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        Box::pin(async { Err(ToolError::NotRunnable { tool: NAME.to_owned() }) })
    }
}

/// Looks at what the schema cannot.
fn check(at: &str, question: &QuestionItem, mistakes: &mut Vec<Mistake>) {
    let mut check = |pointer: String, text: &str, most: usize| {
        mistakes.extend(too_long(pointer, text, most));
    };
    check(format!("{at}/text"), &question.text, QUESTION_TEXT_BYTES_MAX);
    for (index, option) in question.options.iter().enumerate() {
        let at = format!("{at}/options/{index}");
        check(format!("{at}/label"), &option.label, NAME_BYTES_MAX);
        let description = option.description.as_deref().unwrap_or_default();
        check(format!("{at}/description"), description, QUESTION_TEXT_BYTES_MAX);
    }
}
