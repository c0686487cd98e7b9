//! Agents besides their names: how their models are asked, where they come from and what is wrong with one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the model of an agent is asked.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentTuning {
    /// Sampling temperature, 0 to 2; the provider's own when absent. Some models refuse any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Share of the most likely words that are sampled from, above 0 and up to 1; the provider's own when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Most model calls of one run, at least 1; the server's limit when that is lower or this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u32>,
}

impl AgentTuning {
    /// What `change` names in place of what it is, the rest as it is.
    #[must_use]
    pub fn changed(self, change: Self) -> Self {
        Self {
            temperature: change.temperature.or(self.temperature),
            top_p: change.top_p.or(self.top_p),
            max_steps: change.max_steps.or(self.max_steps),
        }
    }

    /// What is wrong with it, as a sentence without its end.
    ///
    /// # Errors
    /// The first value that is out of its range.
    pub fn check(self) -> Result<(), &'static str> {
        if self.temperature.is_some_and(|it| !(0.0..=2.0).contains(&it)) {
            return Err("`temperature` must be 0 to 2");
        }
        if self.top_p.is_some_and(|it| !(it > 0.0 && it <= 1.0)) {
            return Err("`topP` must be above 0 and up to 1");
        }
        if self.max_steps == Some(0) {
            return Err("`maxSteps` must be at least 1");
        }
        Ok(())
    }
}

/// Where an agent is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AgentSource {
    /// The server brings it along.
    Builtin,
    /// `agent.create`.
    #[default]
    Project,
    /// A file of the project, `path`.
    File,
}

/// Why a file of the project defines no agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentProblem {
    /// The file, relative to the project's directory.
    pub path: String,
    /// From 1; 1 where it is about the whole file.
    pub line: u32,
    /// A sentence.
    pub message: String,
}
