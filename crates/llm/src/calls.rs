//! Puts tool calls together, for wires that say where a call begins and where it ends.

use iris_agent::Opaque;

use crate::json::Json;
use crate::{ErrorClass, ModelError, ModelEvent, parse_arguments};

/// Most calls of one answer.
pub const CALLS_MAX: usize = 16;

/// The calls of one answer. They are handed out in order of appearance.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Those that are not handed out.
    open: Vec<Call>,
    /// The ids of all.
    ids: Vec<String>,
}

#[derive(Debug)]
struct Call {
    /// What the wire calls it by. Not unique: the latest call with it is meant.
    key: u64,
    id: String,
    name: String,
    arguments: String,
    is_ended: bool,
    /// Whether it is known that the arguments are all there are, so that none means none.
    is_certain: bool,
    opaque: Option<Opaque>,
}

impl Calls {
    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Begins a call.
    pub(crate) fn start(
        &mut self,
        key: u64,
        id: &str,
        name: &str,
        events: &mut Vec<ModelEvent>,
    ) -> Result<(), ModelError> {
        if self.ids.len() >= CALLS_MAX {
            return Err(too_many());
        }
        if name.is_empty() {
            return Err(unnamed());
        }
        let id = unique_id(id, self.ids.iter().map(String::as_str));
        self.ids.push(id.clone());
        let (call_id, tool) = (id.clone(), name.to_owned());
        events.push(ModelEvent::ToolInputStart { call_id, name: tool });
        self.open.push(Call {
            key,
            id,
            name: name.to_owned(),
            arguments: String::new(),
            is_ended: false,
            is_certain: false,
            opaque: None,
        });
        Ok(())
    }

    /// Adds a fragment of arguments. One for a call that is not open is dropped.
    pub(crate) fn append(&mut self, key: u64, fragment: &str, events: &mut Vec<ModelEvent>) {
        let Some(call) = self.find(key).filter(|_| !fragment.is_empty()) else { return };
        call.arguments.push_str(fragment);
        let (call_id, fragment) = (call.id.clone(), fragment.to_owned());
        events.push(ModelEvent::ToolInputDelta { call_id, fragment });
    }

    /// Ends a call with all of its arguments, of which fragments may have come before.
    pub(crate) fn end_with(
        &mut self,
        key: u64,
        arguments: &str,
        opaque: Option<Opaque>,
        events: &mut Vec<ModelEvent>,
    ) {
        let Some(call) = self.find(key) else { return };
        (call.opaque, call.is_certain) = (opaque, true);
        match arguments.strip_prefix(call.arguments.as_str()) {
            Some(rest) => {
                let rest = rest.to_owned();
                self.append(key, &rest, events);
            }
            // What comes at the end is what counts.
            None => arguments.clone_into(&mut call.arguments),
        }
        self.end(key, events);
    }

    /// Ends a call.
    pub(crate) fn end(&mut self, key: u64, events: &mut Vec<ModelEvent>) {
        if let Some(call) = self.find(key) {
            call.is_ended = true;
        }
        // A call whose arguments are not whole waits for the reason why the answer ended.
        let whole = self.open.iter().take_while(|call| call.is_ended && call.is_whole()).count();
        events.extend(self.open.drain(..whole).map(|call| call.event(true)));
    }

    /// Ends all calls. With `was_cut` the model may have been stopped inside the last one.
    pub(crate) fn finish(&mut self, was_cut: bool, events: &mut Vec<ModelEvent>) {
        for call in self.open.drain(..) {
            let is_complete = call.is_ended && (!was_cut || call.is_whole());
            events.push(call.event(is_complete));
        }
    }

    fn find(&mut self, key: u64) -> Option<&mut Call> {
        self.open.iter_mut().rfind(|call| call.key == key && !call.is_ended)
    }
}

impl Call {
    /// Whether the arguments are a whole object; no text at all is one where it is certain.
    fn is_whole(&self) -> bool {
        (self.is_certain || !self.arguments.is_empty()) && parse_arguments(&self.arguments).is_ok()
    }

    fn event(self, is_complete: bool) -> ModelEvent {
        let Self { id, name, arguments, opaque, .. } = self;
        ModelEvent::ToolCall { call_id: id, name, arguments, is_complete, opaque }
    }
}

/// The text of arguments that came whole: an object mostly, or a text already.
pub(crate) fn arguments_of(value: &Json<'_>) -> String {
    match value {
        Json::Null => "{}".to_owned(),
        Json::Text(text) => text.clone().into_owned(),
        Json::Bool(_) | Json::Number(_) | Json::List(_) | Json::Object(_) => {
            value.to_value().to_string()
        }
    }
}

/// The provider's id where it is there and new, else one of our own.
pub(crate) fn unique_id<'a>(given: &str, taken: impl Iterator<Item = &'a str>) -> String {
    let taken: Vec<&str> = taken.collect();
    let mut id = given.to_owned();
    let mut number = taken.len();
    while id.is_empty() || taken.contains(&id.as_str()) {
        id = format!("call_{number}");
        number += 1;
    }
    id
}

pub(crate) fn too_many() -> ModelError {
    let message = format!("the model called more than `{CALLS_MAX}` tools at once");
    ModelError::new(ErrorClass::Protocol, message)
}

pub(crate) fn unnamed() -> ModelError {
    ModelError::new(ErrorClass::Protocol, "the model called a tool without naming it")
}
