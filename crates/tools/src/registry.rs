//! The tools that exist, by name.

use std::fmt;
use std::sync::Arc;

use iris_agent::ToolSpec;
use iris_sandbox::Sandbox;
use jsonschema::Validator;
use serde_json::Value;

use crate::bash::Bash;
use crate::error::ToolError;
use crate::validation::{compiled, shortened, validate};
use crate::{Tool, builtin, question, task, todo};

/// Tools in a fixed order, each with its compiled schema. A copy shares the tools.
#[derive(Clone)]
pub struct ToolRegistry {
    entries: Vec<Arc<Entry>>,
}

struct Entry {
    tool: Arc<dyn Tool>,
    schema: Validator,
    spec: Arc<ToolSpec>,
}

impl ToolRegistry {
    /// The built-in tools: on files `read`, `write`, `edit`, `multiEdit`, `applyPatch`, `list`, `glob` and
    /// `grep`, then `todoWrite`, `todoRead`, `question` and `task`.
    ///
    /// # Errors
    ///
    /// [`ToolError::InvalidTool`], which would be a mistake in this crate.
    pub fn builtin() -> Result<Self, ToolError> {
        let mut registry = Self::new(builtin::tools())?;
        registry.add(Arc::new(todo::write_tool()))?;
        registry.add(Arc::new(todo::read_tool()))?;
        registry.add(Arc::new(question::tool()))?;
        registry.add(Arc::new(task::tool()))?;
        Ok(registry)
    }

    /// Adds the tool `bash`, which runs commands in `sandbox`.
    ///
    /// # Errors
    ///
    /// As [`ToolRegistry::new`].
    pub fn with_bash(self, sandbox: Sandbox) -> Result<Self, ToolError> {
        self.with(Arc::new(Bash::new(sandbox)))
    }

    /// A registry of `tools`, in this order.
    ///
    /// # Errors
    ///
    /// [`ToolError::InvalidTool`] for a schema that does not compile and for a name that occurs twice.
    pub fn new(tools: Vec<Arc<dyn Tool>>) -> Result<Self, ToolError> {
        let mut registry = Self { entries: Vec::with_capacity(tools.len()) };
        for tool in tools {
            registry.add(tool)?;
        }
        Ok(registry)
    }

    fn add(&mut self, tool: Arc<dyn Tool>) -> Result<(), ToolError> {
        let invalid = |problem| ToolError::InvalidTool { name: tool.name().to_owned(), problem };
        if self.get(tool.name()).is_some() {
            return Err(invalid("another tool has the same name".to_owned()));
        }
        let schema = compiled(tool.parameters()).map_err(invalid)?;
        let spec = ToolSpec::new(tool.name(), tool.description(), tool.parameters());
        self.entries.push(Arc::new(Entry { tool, schema, spec: Arc::new(spec) }));
        Ok(())
    }

    /// A copy with `tools` at its end, and why some of them are not in it: a tool whose schema does not
    /// compile, or whose name another one has already, keeps none of the others away.
    pub fn extended(&self, tools: Vec<Arc<dyn Tool>>) -> (Self, Vec<ToolError>) {
        let mut registry = self.clone();
        let refused = tools.into_iter().filter_map(|tool| registry.add(tool).err());
        let refused = refused.collect();
        (registry, refused)
    }

    /// A copy without the tools that run programs.
    #[must_use]
    pub fn without_code(&self) -> Self {
        let entries = self.entries.iter().filter(|entry| !entry.tool.runs_code());
        Self { entries: entries.cloned().collect() }
    }

    /// The same registry with one more tool at its end.
    ///
    /// # Errors
    ///
    /// As [`ToolRegistry::new`].
    pub fn with(mut self, tool: Arc<dyn Tool>) -> Result<Self, ToolError> {
        self.add(tool)?;
        Ok(self)
    }

    /// The tool called `name`.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        self.entry(name).map(|entry| Arc::clone(&entry.tool))
    }

    /// All names, in the order of the registry.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.tool.name())
    }

    /// Checks whether the tool `name` takes `input`.
    ///
    /// # Errors
    ///
    /// `UnknownTool`, `InvalidInput` with a pointer to each mistake, `InputTooLarge`, and what the tool
    /// itself says.
    pub fn validate(&self, name: &str, input: &Value) -> Result<(), ToolError> {
        let entry = self.entry(name).ok_or_else(|| self.unknown(name))?;
        validate(name, &entry.schema, input)?;
        entry.tool.check(input)
    }

    /// What a model is told of the tools `names`, in that order. Unknown names are left out.
    pub fn specs(&self, names: &[String]) -> Vec<Arc<ToolSpec>> {
        let entries = names.iter().filter_map(|name| self.entry(name));
        entries.map(|entry| Arc::clone(&entry.spec)).collect()
    }

    /// All tools as clients see them, in the order of the registry.
    pub fn to_wire(&self) -> Vec<iris_protocol::Tool> {
        self.entries.iter().map(|entry| wire(entry.tool.as_ref())).collect()
    }

    /// The error for a name that no tool has; it lists the names that exist.
    pub fn unknown(&self, name: &str) -> ToolError {
        let known = self.names().map(str::to_owned).collect();
        ToolError::UnknownTool { name: shortened(name), known }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().map(Arc::as_ref).find(|entry| entry.tool.name() == name)
    }
}

impl fmt::Debug for ToolRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

fn wire(tool: &dyn Tool) -> iris_protocol::Tool {
    iris_protocol::Tool {
        name: tool.name().to_owned(),
        description: tool.description().to_owned(),
        kind: tool.kind(),
        parameters: tool.parameters().clone(),
        writes: tool.writes(),
        enabled: true,
        problem: None,
        http: None,
        command: None,
        id: None,
        revision: None,
        created_by: None,
        created_at: None,
        updated_by: None,
        updated_at: None,
    }
}
