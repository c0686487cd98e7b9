//! What the requests of all wires have in common.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use iris_agent::{Attached, PromptAttachment, PromptCall};
use serde_json::{Map, Value};

/// The arguments of an earlier call. Providers refuse those that are no object, which only a call that
/// got an error for it has.
pub(crate) fn arguments(call: &PromptCall) -> Value {
    if call.arguments.is_object() {
        return call.arguments.clone();
    }
    Value::Object(Map::new())
}

/// The text of a result for wires that have no flag for a failure.
pub(crate) fn tool_text(output: &str, is_error: bool) -> String {
    if is_error { format!("error: {output}") } else { output.to_owned() }
}

pub(crate) fn base64_of(image: &Attached) -> String {
    BASE64_STANDARD.encode(&image.bytes)
}

pub(crate) fn data_url(image: &Attached) -> String {
    format!("data:{};base64,{}", image.mime_type, base64_of(image))
}

/// The images that go with what a person said, in their order, of those that are shown.
pub(crate) fn shown_with<'a>(
    attachments: &'a [PromptAttachment],
    images: &'a BTreeMap<String, Attached>,
) -> Vec<&'a Attached> {
    attachments.iter().filter_map(|it| images.get(it.part().id.as_str())).collect()
}
