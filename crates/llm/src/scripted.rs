//! The scripted model: answers without a network, always the same way, as a small script tells it.
//!
//! It exists for demos and tests, and only where it is configured (kind `scripted`); any model name
//! will do. What it plays is, in this order:
//!
//! 1. the last message of the user, if its first line is a script line;
//! 2. the script file of its configuration (`script`), if there is one;
//! 3. `You said: ` and the user's message.
//!
//! # The script
//!
//! One instruction a line. Blank lines and lines that begin with `#` are skipped. A line that is
//! none of these ends the answer with an error of the class `invalid` that names the line.
//!
//! | Line | What the model does |
//! | --- | --- |
//! | `say TEXT` | streams the text word by word; a second `say` begins a new line |
//! | `think TEXT` | the same as reasoning |
//! | `chunks N TEXT` | streams N pieces, each the text and a space; `word` without a text |
//! | `call TOOL ARGUMENTS` | calls the tool; the rest of the line is sent as the arguments, valid JSON or not, and may be left out |
//! | `delay MS` | waits before each piece from here to the end of the step |
//! | `finish REASON` | ends the step with `stop`, `tool_calls`, `length` or `content_filter`; with `length`, the last call is cut in the middle |
//! | `fail CLASS MESSAGE` | breaks off with an error of that class, such as `rate_limited` |
//! | `cut` | breaks off as if the connection were lost |
//! | `step` | the lines after it answer the next request, when the tools have run |
//! | `repeat` | when the steps are used up, the last one is played again, without end |
//! | `turn` | only in a file: the lines after it answer the next message of the user |
//!
//! Without `finish` a step ends with `tool_calls` if it calls tools, else with `stop`. When the
//! steps are used up without `repeat`, the model says `Done.`; after the last `turn` of a file, it
//! repeats what the user said.
//!
//! `{{result}}` in a text stands for the output of the last tool that ran, and inside the arguments
//! of a `call` for the same as the inside of a JSON string.
//!
//! ```text
//! think I should look at the file first.
//! call read {"path": "README.md"}
//! step
//! say It begins like this:
//! say {{result}}
//! ```
//!
//! Tokens are counted as words.

mod line;
mod play;

use std::path::Path;

use futures_util::stream::{self, StreamExt};
use iris_agent::{Prompt, PromptMessage};

use self::line::{Line, Script};
use self::play::{Scene, play};
use crate::provider::ConfigError;
use crate::{Model, ModelError, ModelRequest, ModelStream};

/// The model that plays scripts; its module describes them.
#[derive(Debug, Default)]
pub struct Scripted {
    /// What is played for messages without a script.
    file: Option<Script>,
}

impl Scripted {
    /// A model that plays `script`, a file's content, for messages that hold no script.
    ///
    /// # Errors
    ///
    /// [`ErrorClass::Invalid`](crate::ErrorClass::Invalid) naming the first bad line.
    pub fn new(script: &str) -> Result<Self, ModelError> {
        Ok(Self { file: Some(Script::parse(script)?) })
    }

    /// Reads the script from a file; `provider` names the provider in errors.
    ///
    /// # Errors
    ///
    /// [`ConfigError::UnreadableScript`] or [`ConfigError::BadScript`].
    pub fn from_file(provider: &str, path: &Path) -> Result<Self, ConfigError> {
        let (provider, path) = (provider.to_owned(), path.to_owned());
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::UnreadableScript { provider, path, source }),
        };
        Self::new(&text).map_err(|source| ConfigError::BadScript { provider, path, source })
    }

    /// The lines that answer `prompt`.
    fn lines(&self, prompt: &Prompt) -> Result<Vec<Line>, ModelError> {
        let position = Position::of(prompt);
        if Script::is_script(position.user_text) {
            let script = Script::parse_message(position.user_text)?;
            return Ok(script.step(0, position.step));
        }
        match &self.file {
            Some(script) if position.turn < script.turns() => {
                Ok(script.step(position.turn, position.step))
            }
            Some(_) | None => Ok(vec![Line::Say(format!("You said: {}", position.user_text))]),
        }
    }
}

impl Model for Scripted {
    fn stream(&self, request: ModelRequest) -> ModelStream {
        let scene = Scene::of(&request);
        match self.lines(&request.prompt) {
            Ok(lines) => play(&lines, &scene),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }
}

/// Where the conversation stands.
struct Position<'a> {
    /// The last message of the user; empty for none.
    user_text: &'a str,
    /// How many messages of the user came before it.
    turn: usize,
    /// How often the model has answered since then.
    step: usize,
}

impl<'a> Position<'a> {
    fn of(prompt: &'a Prompt) -> Self {
        let mut users = 0_usize;
        let mut position = Self { user_text: "", turn: 0, step: 0 };
        for message in &prompt.messages {
            match message {
                PromptMessage::User { text, .. } => {
                    position = Self { user_text: text, turn: users, step: 0 };
                    users += 1;
                }
                PromptMessage::Assistant { .. } => position.step += 1,
                PromptMessage::ToolResult { .. } => {}
            }
        }
        position
    }
}
