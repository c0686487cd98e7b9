//! An agent as a file of the project defines it.
//!
//! Who puts one there need not be an administrator, so that it can only narrow what rules allow: what its agent
//! may do besides is for administrators to say.

use iris_agent::permissions::{Glob, check_permission};
use iris_protocol::limits::{
    AGENT_DESCRIPTION_BYTES_MAX, AGENT_PERMISSIONS_MAX, AGENT_TOOLS_MAX, PROMPT_BYTES_MAX,
};
use iris_protocol::{
    Agent, AgentMode, AgentSource, AgentTuning, ModelRef, PermissionAction, PermissionSetting,
};

use super::front_matter::{Entry, Node, Spot, Wrong, shown, split};
use super::{is_agent_name, is_builtin};

/// Longest part of a name of a model, in bytes.
const MODEL_BYTES_MAX: usize = 200;
const KEYS: &str = "`name`, `description`, `mode`, `model`, `temperature`, `topP`, `maxSteps`, `tools` and \
                    `permissions`";

/// What a file defines.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Definition {
    /// Its `tools` are empty where `tools` below is none.
    pub(super) agent: Agent,
    /// The names of its tools and the lines that they stand in; none for all of the project.
    pub(super) tools: Option<Vec<(String, u32)>>,
    /// The line of its name.
    pub(super) line: u32,
}

/// Reads a file at `path`, whose name without its ending is that of the agent unless it says another one.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn read(path: &str, stem: &str, text: &str) -> Result<Definition, Wrong> {
    let (entries, body) = split(text)?;
    let prompt = body.trim();
    if prompt.len() > PROMPT_BYTES_MAX {
        let message = format!("the prompt is longer than {PROMPT_BYTES_MAX} bytes");
        return Err(Wrong::new(1, message));
    }
    let agent = Agent {
        id: None,
        name: stem.to_owned(),
        description: String::new(),
        mode: AgentMode::default(),
        prompt: prompt.to_owned(),
        model: None,
        tools: Vec::new(),
        permissions: Vec::new(),
        tuning: AgentTuning::default(),
        builtin: false,
        source: AgentSource::File,
        path: Some(path.to_owned()),
        hidden: false,
    };
    let mut definition = Definition { agent, tools: None, line: 1 };
    for entry in entries {
        definition.take(entry)?;
    }
    let name = &definition.agent.name;
    if !is_agent_name(name) {
        let name = shown(name);
        let message = format!("`{name}` is no name: 1 to 64 letters, digits, `-` and `_`");
        return Err(Wrong::new(definition.line, message));
    }
    if is_builtin(name) {
        let message = format!("`{name}` is a built-in agent, which a file cannot replace");
        return Err(Wrong::new(definition.line, message));
    }
    Ok(definition)
}

impl Definition {
    fn take(&mut self, entry: Entry) -> Result<(), Wrong> {
        let Entry { line, key, value } = entry;
        let agent = &mut self.agent;
        match key.as_str() {
            "name" => {
                text(&key, &value)?.clone_into(&mut agent.name);
                self.line = line;
            }
            "description" => agent.description = description(&key, &value)?,
            "mode" => agent.mode = mode(&value)?,
            "model" => agent.model = Some(model(&value)?),
            "temperature" => agent.tuning.temperature = Some(number(&key, &value)?),
            "topP" => agent.tuning.top_p = Some(number(&key, &value)?),
            "maxSteps" => agent.tuning.max_steps = Some(count(&key, &value)?),
            "tools" => self.tools = tools(&value)?,
            "permissions" => agent.permissions = permissions(&value)?,
            _ => {
                let message = format!("`{}` is not understood; there are {KEYS}", shown(&key));
                return Err(Wrong::new(line, message));
            }
        }
        self.agent.tuning.check().map_err(|message| Wrong::new(line, message))
    }
}

fn text<'a>(key: &str, spot: &'a Spot) -> Result<&'a str, Wrong> {
    match &spot.node {
        Node::Text(text) => Ok(text),
        Node::Null | Node::List(_) | Node::Map(_) => {
            Err(Wrong::new(spot.line, format!("`{key}` has to be a text")))
        }
    }
}

fn description(key: &str, spot: &Spot) -> Result<String, Wrong> {
    let text = text(key, spot)?.trim();
    if text.len() > AGENT_DESCRIPTION_BYTES_MAX {
        let message = format!("`{key}` is longer than {AGENT_DESCRIPTION_BYTES_MAX} bytes");
        return Err(Wrong::new(spot.line, message));
    }
    Ok(text.to_owned())
}

fn mode(spot: &Spot) -> Result<AgentMode, Wrong> {
    match text("mode", spot)? {
        "primary" => Ok(AgentMode::Primary),
        "subagent" => Ok(AgentMode::Subagent),
        "all" => Ok(AgentMode::All),
        other => {
            let message = format!("`{}` is not `primary`, `subagent` or `all`", shown(other));
            Err(Wrong::new(spot.line, message))
        }
    }
}

fn model(spot: &Spot) -> Result<ModelRef, Wrong> {
    let name = text("model", spot)?;
    let is_part = |part: &str| {
        !part.trim().is_empty()
            && part.len() <= MODEL_BYTES_MAX
            && !part.chars().any(char::is_control)
    };
    match name.split_once('/') {
        Some((provider, model)) if is_part(provider) && is_part(model) => {
            Ok(ModelRef { provider_id: provider.to_owned(), model_id: model.to_owned() })
        }
        Some(_) | None => {
            let message = format!("`{}` is not of the form `provider/model`", shown(name));
            Err(Wrong::new(spot.line, message))
        }
    }
}

fn number(key: &str, spot: &Spot) -> Result<f64, Wrong> {
    let parsed = text(key, spot)?.parse().ok().filter(|number: &f64| number.is_finite());
    parsed.ok_or_else(|| Wrong::new(spot.line, format!("`{key}` has to be a number")))
}

fn count(key: &str, spot: &Spot) -> Result<u32, Wrong> {
    let parsed = text(key, spot)?.parse();
    parsed.map_err(|_| Wrong::new(spot.line, format!("`{key}` has to be a whole number")))
}

fn tools(spot: &Spot) -> Result<Option<Vec<(String, u32)>>, Wrong> {
    let items = match &spot.node {
        Node::List(items) => items.as_slice(),
        Node::Null => &[],
        // All of the project.
        Node::Text(text) if text == "*" => return Ok(None),
        Node::Text(_) | Node::Map(_) => {
            return Err(Wrong::new(spot.line, "`tools` has to be a list of names, or `*`"));
        }
    };
    if items.len() > AGENT_TOOLS_MAX {
        let message = format!("an agent has at most {AGENT_TOOLS_MAX} tools");
        return Err(Wrong::new(spot.line, message));
    }
    let mut tools: Vec<(String, u32)> = Vec::new();
    for item in items {
        let name = text("tools", item)?;
        if tools.iter().any(|(other, _)| other == name) {
            let message = format!("the tool `{}` is named twice", shown(name));
            return Err(Wrong::new(item.line, message));
        }
        tools.push((name.to_owned(), item.line));
    }
    Ok(Some(tools))
}

fn permissions(spot: &Spot) -> Result<Vec<PermissionSetting>, Wrong> {
    let items = match &spot.node {
        Node::List(items) => items.as_slice(),
        Node::Null => &[],
        Node::Text(_) | Node::Map(_) => {
            return Err(Wrong::new(spot.line, "`permissions` has to be a list of rules"));
        }
    };
    if items.len() > AGENT_PERMISSIONS_MAX {
        let message = format!("an agent has at most {AGENT_PERMISSIONS_MAX} permission rules");
        return Err(Wrong::new(spot.line, message));
    }
    items.iter().map(permission).collect()
}

fn permission(spot: &Spot) -> Result<PermissionSetting, Wrong> {
    let Node::Map(entries) = &spot.node else {
        let message = "a rule has `permission`, `pattern` and `action`";
        return Err(Wrong::new(spot.line, message));
    };
    let (mut permission, mut pattern, mut action) = (None, "*".to_owned(), None);
    for Entry { line, key, value } in entries {
        let text = text(key, value)?;
        let wrong =
            |error: iris_agent::permissions::InvalidRule| Wrong::new(value.line, error.to_string());
        match key.as_str() {
            "permission" => {
                check_permission(text).map_err(wrong)?;
                permission = Some(text.to_owned());
            }
            "pattern" => {
                Glob::new(text).map_err(wrong)?;
                text.clone_into(&mut pattern);
            }
            "action" => action = Some(narrowing(text, value.line)?),
            _ => {
                let message = format!("a rule has no `{}`", shown(key));
                return Err(Wrong::new(*line, message));
            }
        }
    }
    let missing = |name: &str| Wrong::new(spot.line, format!("a rule has no `{name}`"));
    let permission = permission.ok_or_else(|| missing("permission"))?;
    let action = action.ok_or_else(|| missing("action"))?;
    Ok(PermissionSetting { permission, pattern, action })
}

fn narrowing(action: &str, line: u32) -> Result<PermissionAction, Wrong> {
    match action {
        "deny" => Ok(PermissionAction::Deny),
        "ask" => Ok(PermissionAction::Ask),
        "allow" => {
            let message = "a file cannot allow anything: an administrator does so with `agent.create` or \
                           `permission.create`";
            Err(Wrong::new(line, message))
        }
        other => Err(Wrong::new(line, format!("`{}` is not `ask` or `deny`", shown(other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Definition, Wrong> {
        super::read(".iris/agents/reviewer.md", "reviewer", text)
    }

    #[test]
    fn each_key_is_read() {
        let file = "---\nname: critic\ndescription: Reads what others wrote\nmode: subagent\n\
                    model: claude/org/model\ntemperature: 0.5\ntopP: 1\nmaxSteps: 7\n\
                    tools: [read, grep]\npermissions:\n  - permission: edit\n    action: deny\n  \
                    - { permission: read, pattern: \"*.key\", action: ask }\n---\n\nYou are strict.\n";
        let Definition { agent, tools, line } = read(file).unwrap();
        let rule = |permission: &str, pattern: &str, action| PermissionSetting {
            permission: permission.to_owned(),
            pattern: pattern.to_owned(),
            action,
        };
        let expected = Agent {
            id: None,
            name: "critic".to_owned(),
            description: "Reads what others wrote".to_owned(),
            mode: AgentMode::Subagent,
            prompt: "You are strict.".to_owned(),
            model: Some(ModelRef { provider_id: "claude".into(), model_id: "org/model".into() }),
            tools: Vec::new(),
            permissions: vec![
                rule("edit", "*", PermissionAction::Deny),
                rule("read", "*.key", PermissionAction::Ask),
            ],
            tuning: AgentTuning { temperature: Some(0.5), top_p: Some(1.0), max_steps: Some(7) },
            builtin: false,
            source: AgentSource::File,
            path: Some(".iris/agents/reviewer.md".to_owned()),
            hidden: false,
        };
        assert_eq!((agent, line), (expected, 2));
        assert_eq!(tools, Some(vec![("read".to_owned(), 9), ("grep".to_owned(), 9)]));
        let least = read("---\n---\n").unwrap();
        assert_eq!((least.agent.name.as_str(), least.tools), ("reviewer", None));
        assert_eq!(read("---\ntools: \"*\"\n---\n").unwrap().tools, None);
        assert_eq!(read("---\ntools: []\n---\n").unwrap().tools, Some(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let long = format!("---\n---\n{}", "x".repeat(PROMPT_BYTES_MAX + 1));
        for (file, line, part) in [
            ("no front matter", 1, "does not begin with"),
            ("---\ncolour: red\n---\n", 2, "`colour` is not understood; there are `name`,"),
            ("---\nmode: all\nname: a b\n---\n", 3, "`a b` is no name"),
            ("---\nname: plan\n---\n", 2, "`plan` is a built-in agent"),
            ("---\nname: title\n---\n", 2, "`title` is a built-in agent"),
            ("---\nname: [a]\n---\n", 2, "`name` has to be a text"),
            ("---\nmode: boss\n---\n", 2, "`boss` is not `primary`"),
            ("---\nmodel: gpt\n---\n", 2, "`provider/model`"),
            ("---\nmodel: /x\n---\n", 2, "`provider/model`"),
            ("---\ntemperature: hot\n---\n", 2, "has to be a number"),
            ("---\ntemperature: .nan\n---\n", 2, "has to be a number"),
            ("---\ntemperature: 3\n---\n", 2, "`temperature` must be 0 to 2"),
            ("---\ntopP: 0\n---\n", 2, "`topP` must be above 0"),
            ("---\nmaxSteps: 0\n---\n", 2, "`maxSteps` must be at least 1"),
            ("---\nmaxSteps: 1.5\n---\n", 2, "has to be a whole number"),
            ("---\ntools: read\n---\n", 2, "a list of names"),
            ("---\ntools:\n  - read\n  - read\n---\n", 4, "named twice"),
            ("---\npermissions:\n  - edit\n---\n", 3, "a rule has `permission`"),
            ("---\npermissions:\n  - permission: edit\n---\n", 3, "has no `action`"),
            (
                "---\npermissions:\n  - permission: bash\n    action: allow\n---\n",
                4,
                "cannot allow",
            ),
            (
                "---\npermissions:\n  - permission: edit\n    action: maybe\n---\n",
                4,
                "`ask` or `deny`",
            ),
            ("---\npermissions:\n  - permission: e d\n    action: deny\n---\n", 3, ""),
            (
                "---\npermissions:\n  - permission: edit\n    pattern: '!a'\n    action: deny\n---\n",
                4,
                "",
            ),
            (&long, 1, "the prompt is longer"),
        ] {
            let wrong = read(file).unwrap_err();
            assert_eq!(wrong.line, line, "{file}: {wrong:?}");
            assert!(wrong.message.contains(part), "{file}: {wrong:?}");
        }
    }
}
