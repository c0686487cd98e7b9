//! Puts tool calls together from their fragments, for servers that keep to the wire and for those
//! that leave out indexes, ids or names.

use iris_agent::{OPAQUE_BYTES_MAX, Opaque};
use serde_json::value::RawValue;

use super::KIND;
use crate::calls::{CALLS_MAX, too_many, unique_id, unnamed};
use crate::failure::too_long;
use crate::json::Json;
use crate::{ModelError, ModelEvent, parse_arguments};

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
    opaque: Option<Opaque>,
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

    /// Takes element `position` of a chunk's `tool_calls`, and what the server wants back with it.
    pub(super) fn push(
        &mut self,
        position: usize,
        value: &Json<'_>,
        extra: Option<&RawValue>,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        let fragment = Fragment::read(position, value);
        let at = match self.find(&fragment) {
            Some(at) => at,
            None => self.add(&fragment)?,
        };
        if let Some(call) = self.calls.get_mut(at) {
            call.append(&fragment, events);
            call.keep(extra)?;
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
                return Err(unnamed());
            }
            events.push(ModelEvent::ToolCall {
                is_complete: !was_cut || call.is_whole(),
                call_id: call.id,
                name: call.name,
                arguments: call.arguments,
                opaque: call.opaque,
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
            return Err(too_many());
        }
        self.calls.push(Call {
            key: fragment.index.unwrap_or(fragment.position),
            id: unique_id(fragment.id, self.calls.iter().map(|call| call.id.as_str())),
            given_id: fragment.id.to_owned(),
            name: String::new(),
            arguments: String::new(),
            opaque: None,
        });
        Ok(self.calls.len() - 1)
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

    fn keep(&mut self, extra: Option<&RawValue>) -> Result<(), ModelError> {
        let Some(extra) = extra else { return Ok(()) };
        if extra.get().len() > OPAQUE_BYTES_MAX {
            return Err(too_long());
        }
        self.opaque = Some(Opaque { kind: KIND.to_owned(), json: extra.get().into() });
        Ok(())
    }

    /// Whether the arguments are a whole object; no text at all is not.
    fn is_whole(&self) -> bool {
        !self.arguments.is_empty() && parse_arguments(&self.arguments).is_ok()
    }
}

impl<'a> Fragment<'a> {
    fn read(position: usize, value: &'a Json<'_>) -> Self {
        let function = value.get("function");
        let arguments = match function.get("arguments") {
            Json::Text(text) => text.clone().into_owned(),
            object @ Json::Object(_) => object.to_value().to_string(),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::List(_) => String::new(),
        };
        Self {
            index: value.get("index").count(),
            position: u64::try_from(position).unwrap_or(u64::MAX),
            id: value.get("id").text(),
            name: function.get("name").text(),
            arguments,
        }
    }
}
