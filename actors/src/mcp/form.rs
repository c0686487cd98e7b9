//! What an MCP server asks people, as questions, and their answers as what it wants: pure.

use iris_mcp::{Elicitation, with_hidden_shown};
use iris_protocol::limits::{
    NAME_BYTES_MAX, QUESTION_OPTIONS_MAX, QUESTION_TEXT_BYTES_MAX, QUESTIONS_MAX,
};
use iris_protocol::{QuestionItem, QuestionOption};
use serde_json::{Map, Number, Value};

/// What stands for no answer to a question that needs none.
const NOTHING: &str = "-";
const YES: &str = "Yes";
const NO: &str = "No";

/// What is asked, field by field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Form {
    fields: Vec<Field>,
    pub(crate) questions: Vec<QuestionItem>,
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    name: String,
    schema: Value,
    kind: Kind,
    is_required: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Whether all of it is fine, where nothing else is asked.
    Consent,
    Text,
    Number,
    Integer,
    Boolean,
    /// One of these: what people see, and what the server gets.
    Choice(Vec<(String, String)>),
    /// Any number of these.
    Choices(Vec<(String, String)>),
}

impl Form {
    /// The questions for what a server asks; none where it cannot be asked: it wants too much, or something
    /// that is no plain value.
    pub(crate) fn of(server: &str, elicitation: &Elicitation) -> Option<Self> {
        let properties = elicitation.schema.get("properties").and_then(Value::as_object);
        let properties = properties.cloned().unwrap_or_default();
        if properties.len() > QUESTIONS_MAX {
            return None;
        }
        let required = elicitation.schema.get("required").and_then(Value::as_array);
        let is_required = |name: &String| {
            required.is_some_and(|all| all.iter().any(|it| it.as_str() == Some(name.as_str())))
        };
        let mut fields = Vec::new();
        for (name, schema) in properties {
            let (kind, is_required) = (kind(&schema)?, is_required(&name));
            fields.push(Field { name, schema, kind, is_required });
        }
        if fields.is_empty() {
            let (name, schema) = (String::new(), Value::Null);
            fields.push(Field { name, schema, kind: Kind::Consent, is_required: true });
        }
        let heading = format!("The MCP server `{server}` asks: {}", elicitation.message);
        let mut questions = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            let heading = if index == 0 { heading.as_str() } else { "" };
            questions.push(field.question(heading)?);
        }
        Some(Self { fields, questions })
    }

    /// The same questions, with what was wrong with the answers.
    pub(crate) fn again(&self, problem: &str) -> Vec<QuestionItem> {
        let mut questions = self.questions.clone();
        if let Some(first) = questions.first_mut() {
            first.text = cut(&format!("{problem}. {}", first.text));
        }
        questions
    }

    /// What the server gets for these answers; none where people do not consent.
    ///
    /// # Errors
    /// What is wrong with an answer, for whoever gave it.
    pub(crate) fn content(&self, answers: &[Vec<String>]) -> Result<Option<Value>, String> {
        let mut content = Map::new();
        for (field, texts) in self.fields.iter().zip(answers) {
            if field.kind == Kind::Consent {
                let is_yes = texts.first().is_some_and(|text| text == YES);
                return Ok(is_yes.then(|| Value::Object(content)));
            }
            if let Some(value) = field.value(texts)? {
                content.insert(field.name.clone(), value);
            }
        }
        Ok(Some(Value::Object(content)))
    }
}

fn kind(schema: &Value) -> Option<Kind> {
    if let Some(choices) = choices(schema) {
        return Some(Kind::Choice(choices));
    }
    match schema.get("type")?.as_str()? {
        "string" => Some(Kind::Text),
        "number" => Some(Kind::Number),
        "integer" => Some(Kind::Integer),
        "boolean" => Some(Kind::Boolean),
        "array" => Some(Kind::Choices(choices(schema.get("items")?)?)),
        _ => None,
    }
}

/// What people see of each choice, and what the server gets for it.
fn choices(schema: &Value) -> Option<Vec<(String, String)>> {
    let titled = schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array);
    if let Some(titled) = titled {
        let choice = |it: &Value| {
            let value = it.get("const")?.as_str()?.to_owned();
            let title = it.get("title").and_then(Value::as_str).unwrap_or(&value);
            Some((with_hidden_shown(title), value))
        };
        return titled.iter().map(choice).collect();
    }
    let values = schema.get("enum")?.as_array()?;
    let names = schema.get("enumNames").and_then(Value::as_array);
    let choice = |(index, value): (usize, &Value)| {
        let value = value.as_str()?.to_owned();
        let name = names.and_then(|names| names.get(index)?.as_str()).unwrap_or(&value);
        Some((with_hidden_shown(name), value))
    };
    values.iter().enumerate().map(choice).collect()
}

impl Field {
    /// None where it cannot be shown.
    fn question(&self, heading: &str) -> Option<QuestionItem> {
        let text = |name: &str| self.schema.get(name).and_then(Value::as_str);
        let mut line = text("title").unwrap_or(&self.name).to_owned();
        if let Some(description) = text("description") {
            line = format!("{line}: {description}");
        }
        if let Some(hint) = self.hint() {
            line = format!("{line} ({hint})");
        }
        let whole = if self.kind == Kind::Consent {
            heading.to_owned()
        } else if heading.is_empty() {
            line
        } else {
            format!("{heading}\n\n{line}")
        };
        let (labels, multiple) = match &self.kind {
            Kind::Consent | Kind::Boolean => (vec![YES.to_owned(), NO.to_owned()], false),
            Kind::Text | Kind::Number | Kind::Integer => (Vec::new(), false),
            Kind::Choice(choices) => (labels(choices), false),
            Kind::Choices(choices) => (labels(choices), true),
        };
        let fits = |label: &String| (1..=NAME_BYTES_MAX).contains(&label.len());
        let is_double =
            |(index, label): (usize, &String)| labels.iter().take(index).any(|it| it == label);
        if labels.len() > QUESTION_OPTIONS_MAX
            || !labels.iter().all(fits)
            || labels.iter().enumerate().any(is_double)
        {
            return None;
        }
        let options = labels.into_iter().map(|label| QuestionOption { label, description: None });
        Some(QuestionItem {
            text: cut(&with_hidden_shown(&whole)),
            options: options.collect(),
            multiple,
        })
    }

    fn hint(&self) -> Option<String> {
        let what = match self.kind {
            Kind::Number => Some("a number"),
            Kind::Integer => Some("a whole number"),
            Kind::Text => self.schema.get("format").and_then(Value::as_str),
            Kind::Consent | Kind::Boolean | Kind::Choice(_) | Kind::Choices(_) => None,
        };
        let is_free = !self.is_required && !matches!(self.kind, Kind::Choices(_));
        let nothing = is_free.then(|| format!("`{NOTHING}` for none"));
        let hints: Vec<String> = what.map(str::to_owned).into_iter().chain(nothing).collect();
        (!hints.is_empty()).then(|| hints.join(", "))
    }

    fn value(&self, texts: &[String]) -> Result<Option<Value>, String> {
        if let Kind::Choices(choices) = &self.kind {
            let values: Result<Vec<Value>, String> =
                texts.iter().map(|text| chosen(choices, text).map(Value::String)).collect();
            let values = values?;
            self.check("minItems", "maxItems", values.len(), "answers")?;
            return Ok(Some(Value::Array(values)));
        }
        let text = texts.first().map(String::as_str).unwrap_or_default();
        if !self.is_required && text == NOTHING {
            return Ok(None);
        }
        let value = match &self.kind {
            Kind::Text => {
                self.check("minLength", "maxLength", text.chars().count(), "characters")?;
                Value::String(text.to_owned())
            }
            Kind::Integer => {
                let number: i64 =
                    text.trim().parse().map_err(|_| format!("`{text}` is no whole number"))?;
                self.in_range(text.trim().parse().unwrap_or(f64::NAN), text)?;
                Value::Number(number.into())
            }
            Kind::Number => {
                let number: Option<f64> = text.trim().parse().ok();
                let number = number.and_then(|it| Some((it, Number::from_f64(it)?)));
                let (value, number) = number.ok_or_else(|| format!("`{text}` is no number"))?;
                self.in_range(value, text)?;
                Value::Number(number)
            }
            Kind::Boolean | Kind::Consent => match text {
                YES => Value::Bool(true),
                NO => Value::Bool(false),
                _ => return Err(format!("`{text}` is neither `{YES}` nor `{NO}`")),
            },
            Kind::Choice(choices) => Value::String(chosen(choices, text)?),
            Kind::Choices(_) => return Ok(None),
        };
        Ok(Some(value))
    }

    fn check(&self, least: &str, most: &str, count: usize, what: &str) -> Result<(), String> {
        let limit = |name: &str| self.schema.get(name).and_then(Value::as_u64);
        let count = count as u64;
        if limit(least).is_some_and(|least| count < least) {
            return Err(format!(
                "`{}` needs at least {} {what}",
                self.name,
                limit(least).unwrap_or_default()
            ));
        }
        if limit(most).is_some_and(|most| count > most) {
            return Err(format!(
                "`{}` takes at most {} {what}",
                self.name,
                limit(most).unwrap_or_default()
            ));
        }
        Ok(())
    }

    fn in_range(&self, number: f64, text: &str) -> Result<(), String> {
        let limit = |name: &str| self.schema.get(name).and_then(Value::as_f64);
        let is_low = limit("minimum").is_some_and(|least| number < least);
        let is_high = limit("maximum").is_some_and(|most| number > most);
        if is_low || is_high {
            return Err(format!("`{text}` is out of the range that is asked for"));
        }
        Ok(())
    }
}

fn labels(choices: &[(String, String)]) -> Vec<String> {
    choices.iter().map(|(label, _)| label.clone()).collect()
}

fn chosen(choices: &[(String, String)], text: &str) -> Result<String, String> {
    let found = choices.iter().find(|(label, value)| label == text || value == text);
    found
        .map(|(_, value)| value.clone())
        .ok_or_else(|| format!("`{text}` is not among the choices"))
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(QUESTION_TEXT_BYTES_MAX);
    let kept = text.get(..end).unwrap_or_default();
    if kept.is_empty() { "?".to_owned() } else { kept.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(schema: Value) -> Option<Form> {
        Form::of("x", &Elicitation { message: "Which?".to_owned(), schema })
    }

    fn answers(texts: &[&[&str]]) -> Vec<Vec<String>> {
        texts.iter().map(|texts| texts.iter().map(|text| (*text).to_owned()).collect()).collect()
    }

    #[test]
    fn fields_become_questions_and_answers_become_what_is_wanted() {
        let schema = json!({"type": "object", "required": ["name", "size", "many", "sure"], "properties": {
            "name": {"type": "string", "title": "Name", "description": "Of it", "maxLength": 5},
            "size": {"type": "string", "enum": ["s", "l"], "enumNames": ["Small", "Large"]},
            "many": {"type": "integer", "minimum": 1},
            "price": {"type": "number"},
            "sure": {"type": "boolean"},
            "tags": {"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]}},
        }});
        let form = form(schema).unwrap();
        let texts: Vec<&str> = form.questions.iter().map(|it| it.text.as_str()).collect();
        let expected = [
            "The MCP server `x` asks: Which?\n\nName: Of it",
            "size",
            "many (a whole number)",
            "price (a number, `-` for none)",
            "sure",
            "tags",
        ];
        assert_eq!(texts, expected);
        assert_eq!(form.questions[1].options[0].label, "Small");
        assert!(form.questions[5].multiple);
        let good = answers(&[&["lamp"], &["Large"], &["3"], &["-"], &["Yes"], &["A", "b"]]);
        let content =
            json!({"name": "lamp", "size": "l", "many": 3, "sure": true, "tags": ["a", "b"]});
        assert_eq!(form.content(&good), Ok(Some(content)));
        for (place, bad, problem) in [
            (0, "too long", "takes at most 5 characters"),
            (1, "Medium", "is not among the choices"),
            (2, "0", "is out of the range"),
            (2, "x", "is no whole number"),
            (3, "NaN", "is no number"),
            (4, "perhaps", "is neither"),
        ] {
            let mut answers = good.clone();
            answers[place] = vec![bad.to_owned()];
            assert!(form.content(&answers).unwrap_err().contains(problem), "{bad}");
        }
    }

    #[test]
    fn nothing_to_fill_in_is_a_question_of_consent() {
        let form = form(json!({"type": "object", "properties": {}})).unwrap();
        assert_eq!(form.questions[0].options.len(), 2);
        assert_eq!(form.content(&answers(&[&["Yes"]])), Ok(Some(json!({}))));
        assert_eq!(form.content(&answers(&[&["No"]])), Ok(None));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let many: Map<String, Value> =
            (0..9).map(|number| (number.to_string(), json!({"type": "string"}))).collect();
        assert_eq!(form(json!({ "properties": many })), None);
        assert_eq!(form(json!({"properties": {"a": {"type": "object"}}})), None);
        let options: Vec<String> = (0..11).map(|number| number.to_string()).collect();
        assert_eq!(form(json!({"properties": {"a": {"type": "string", "enum": options}}})), None);
        assert_eq!(form(json!({"properties": {"a": {"enum": ["x", "x"]}}})), None);
    }

    #[test]
    fn m1_hidden_text_is_shown_to_those_who_are_asked_and_long_text_is_cut() {
        let message = format!("a\u{202e}b{}", "x".repeat(5000));
        let form = Form::of("x", &Elicitation { message, schema: json!({}) }).unwrap();
        let text = &form.questions[0].text;
        assert!(text.contains("a\\u{202e}b") && text.len() <= QUESTION_TEXT_BYTES_MAX);
    }
}
