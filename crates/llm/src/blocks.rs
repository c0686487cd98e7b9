//! Opens and closes the blocks of text and reasoning around their pieces.

use iris_agent::Opaque;

use crate::ModelEvent;

/// The block that is open, if any.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    open: Option<(Kind, u32)>,
    count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
}

impl Blocks {
    /// Adds a piece of text; nothing when it is empty.
    pub(crate) fn text(&mut self, text: &str, events: &mut Vec<ModelEvent>) {
        if !text.is_empty() {
            let index = self.open_text(events);
            events.push(ModelEvent::TextDelta { index, text: text.to_owned() });
        }
    }

    /// Adds a piece of reasoning; nothing when it is empty.
    pub(crate) fn reasoning(&mut self, text: &str, events: &mut Vec<ModelEvent>) {
        if !text.is_empty() {
            let index = self.open_reasoning(events);
            events.push(ModelEvent::ReasoningDelta { index, text: text.to_owned() });
        }
    }

    /// The block of text that is open, which begins here if none is.
    pub(crate) fn open_text(&mut self, events: &mut Vec<ModelEvent>) -> u32 {
        self.open(Kind::Text, events)
    }

    /// The block of reasoning that is open, which begins here if none is.
    pub(crate) fn open_reasoning(&mut self, events: &mut Vec<ModelEvent>) -> u32 {
        self.open(Kind::Reasoning, events)
    }

    /// A block of reasoning with this opaque data: the open one, or an empty one. It ends here.
    pub(crate) fn seal_reasoning(&mut self, opaque: Opaque, events: &mut Vec<ModelEvent>) {
        let index = self.open_reasoning(events);
        events.push(ModelEvent::ReasoningOpaque { index, opaque });
        self.close(events);
    }

    /// Closes what is open.
    pub(crate) fn close(&mut self, events: &mut Vec<ModelEvent>) {
        match self.open.take() {
            Some((Kind::Text, index)) => events.push(ModelEvent::TextEnd { index }),
            Some((Kind::Reasoning, index)) => events.push(ModelEvent::ReasoningEnd { index }),
            None => {}
        }
    }

    fn open(&mut self, kind: Kind, events: &mut Vec<ModelEvent>) -> u32 {
        if let Some((open, index)) = self.open
            && open == kind
        {
            return index;
        }
        self.close(events);
        let index = self.count;
        self.count += 1;
        self.open = Some((kind, index));
        events.push(match kind {
            Kind::Text => ModelEvent::TextStart { index },
            Kind::Reasoning => ModelEvent::ReasoningStart { index },
        });
        index
    }
}
