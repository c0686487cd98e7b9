//! Puts tool calls together from their fragments, for servers that keep to the wire and for those
//! that leave out indexes, ids or names.

use serde_json::Value;

use crate::{ErrorClass, ModelError, ModelEvent, parse_arguments};

/// Most calls of one answer.
pub const CALLS_MAX: usize = 16;

/// The calls of one answer, in order of appearance.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    /// `index` of the wire, or the place in its chunk. Not unique: the latest call with it is meant.
    key: u64,
    /// The id that we hand out: the server's where it gave a good one.
    id: String,
    /// The id that the server gave; empty for none.
    given_id: String,
    /// Empty until it is known; the call is announced only then.
    name: String,
    arguments: String,
}

/// One element of `tool_calls`, read leniently.
struct Fragment<'a> {
    index: Option<u64>,
    position: u64,
    id: &'a str,
    name: &'a str,
    arguments: String,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Takes element `position` of a chunk's `tool_calls`.
    pub(super) fn push(
        &mut self,
        position: usize,
        value: &Value,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        let fragment = Fragment::read(position, value);
        let at = match self.find(&fragment) {
            Some(at) => at,
            None => self.add(&fragment)?,
        };
        if let Some(call) = self.calls.get_mut(at) {
            call.append(&fragment, events);
        }
        Ok(())
    }

    /// Ends all calls. With `was_cut` the model may have been stopped inside the last one.
    pub(super) fn finish(
        &mut self,
        was_cut: bool,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        for call in std::mem::take(&mut self.calls) {
            if call.name.is_empty() {
                let message = "the model called a tool without naming it";
                return Err(ModelError::new(ErrorClass::Protocol, message));
            }
            events.push(ModelEvent::ToolCall {
                is_complete: !was_cut || call.is_whole(),
                call_id: call.id,
                name: call.name,
                arguments: call.arguments,
            });
        }
        Ok(())
    }

    /// The call that a fragment continues.
    fn find(&self, fragment: &Fragment<'_>) -> Option<usize> {
        if fragment.index.is_none() && !fragment.id.is_empty() {
            return self.calls.iter().position(|call| call.given_id == fragment.id);
        }
        let key = fragment.index.unwrap_or(fragment.position);
        let at = self.calls.iter().rposition(|call| call.key == key)?;
        let continues = self.calls.get(at).is_some_and(|call| !call.is_followed_by(fragment));
        continues.then_some(at)
    }

    fn add(&mut self, fragment: &Fragment<'_>) -> Result<usize, ModelError> {
        if self.calls.len() >= CALLS_MAX {
            let message = format!("the model called more than `{CALLS_MAX}` tools at once");
            return Err(ModelError::new(ErrorClass::Protocol, message));
        }
        self.calls.push(Call {
            key: fragment.index.unwrap_or(fragment.position),
            id: self.unique_id(fragment.id),
            given_id: fragment.id.to_owned(),
            name: String::new(),
            arguments: String::new(),
        });
        Ok(self.calls.len() - 1)
    }

    /// The server's id where it is there and new, else one of our own.
    fn unique_id(&self, given: &str) -> String {
        let is_taken = |id: &str| self.calls.iter().any(|call| call.id == id);
        let mut id = given.to_owned();
        let mut number = self.calls.len();
        while id.is_empty() || is_taken(&id) {
            id = format!("call_{number}");
            number += 1;
        }
        id
    }
}

impl Call {
    /// Whether a named fragment with this call's key begins another call. Some servers number every
    /// call 0; others repeat id and name, or make up a new id, with each fragment of one call.
    fn is_followed_by(&self, fragment: &Fragment<'_>) -> bool {
        if fragment.name.is_empty() || self.name.is_empty() {
            return false;
        }
        let has_both = !fragment.id.is_empty() && !self.given_id.is_empty();
        if has_both {
            return fragment.id != self.given_id;
        }
        self.is_whole() && !fragment.arguments.is_empty()
    }

    fn append(&mut self, fragment: &Fragment<'_>, events: &mut Vec<ModelEvent>) {
        self.arguments.push_str(&fragment.arguments);
        let mut new = fragment.arguments.as_str();
        if self.name.is_empty() {
            if fragment.name.is_empty() {
                return;
            }
            fragment.name.clone_into(&mut self.name);
            let (call_id, name) = (self.id.clone(), self.name.clone());
            events.push(ModelEvent::ToolInputStart { call_id, name });
            // What came before the name was held back.
            new = &self.arguments;
        }
        if !new.is_empty() {
            let (call_id, fragment) = (self.id.clone(), new.to_owned());
            events.push(ModelEvent::ToolInputDelta { call_id, fragment });
        }
    }

    /// Whether the arguments are a whole object; no text at all is not.
    fn is_whole(&self) -> bool {
        !self.arguments.is_empty() && parse_arguments(&self.arguments).is_ok()
    }
}

impl<'a> Fragment<'a> {
    fn read(position: usize, value: &'a Value) -> Self {
        let text = |path| value.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let arguments = match value.pointer("/function/arguments") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Object(object)) => Value::Object(object.clone()).to_string(),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) | None => {
                String::new()
            }
        };
        Self {
            index: value.get("index").and_then(Value::as_u64),
            position: u64::try_from(position).unwrap_or(u64::MAX),
            id: text("/id"),
            name: text("/function/name"),
            arguments,
        }
    }
}
