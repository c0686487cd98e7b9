//! What was used, added up, and how much may be.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, ErrorCode, ListedModel, ModelFacts, ModelRef, ProjectId, SessionId, Usage, UserId,
};

/// What several steps used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageTotals {
    /// Tokens, and the cost where that of every step is known.
    pub usage: Usage,
    /// Model calls.
    pub steps: u64,
    /// Those among them whose cost is not known.
    pub unpriced_steps: u64,
    /// What the others cost, and what these cost at least, in billionths of a US dollar.
    pub known_cost_nano_usd: i64,
    /// How long runs worked, in milliseconds, without the time in which they waited for people.
    pub wall_time_ms: u64,
}

impl UsageTotals {
    /// The totals of one step or of a piece of it.
    pub fn of_step(usage: Usage, steps: u64, wall_time_ms: u64) -> Self {
        let is_used = steps > 0 || usage.input_tokens > 0 || usage.output_tokens > 0;
        // An attempt at a step that failed counts as one, when nobody knows what it cost.
        let unpriced_steps =
            if usage.cost_nano_usd.is_none() && is_used { steps.max(1) } else { 0 };
        let known_cost_nano_usd = usage.cost_nano_usd.unwrap_or(0);
        Self { usage, steps, unpriced_steps, known_cost_nano_usd, wall_time_ms }.with_cost()
    }

    /// The same where that much is known of a cost which is not known in all.
    #[must_use]
    pub fn costing_at_least(mut self, nano_usd: i64) -> Self {
        self.known_cost_nano_usd = self.known_cost_nano_usd.saturating_add(nano_usd);
        self.with_cost()
    }

    /// Adds up; nothing overflows.
    pub fn add(&mut self, other: &Self) {
        self.usage.add(&other.usage);
        self.steps = self.steps.saturating_add(other.steps);
        self.unpriced_steps = self.unpriced_steps.saturating_add(other.unpriced_steps);
        self.known_cost_nano_usd =
            self.known_cost_nano_usd.saturating_add(other.known_cost_nano_usd);
        self.wall_time_ms = self.wall_time_ms.saturating_add(other.wall_time_ms);
        *self = self.with_cost();
    }

    /// The cost is known where no step is without one.
    #[must_use]
    pub fn with_cost(mut self) -> Self {
        let is_known = self.unpriced_steps == 0;
        self.usage.cost_nano_usd = is_known.then_some(self.known_cost_nano_usd);
        self
    }

    /// Tokens of prompts and answers.
    pub fn tokens(&self) -> u64 {
        self.usage.input_tokens.saturating_add(self.usage.output_tokens)
    }
}

/// The most that may be used; what is absent has no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Budget {
    /// Model calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Tokens of prompts and answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Billionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_nano_usd: Option<u64>,
    /// Milliseconds in which runs worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_time_ms: Option<u64>,
}

impl Budget {
    /// Whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// This one, and where it says nothing the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            steps: self.steps.or(other.steps),
            tokens: self.tokens.or(other.tokens),
            cost_nano_usd: self.cost_nano_usd.or(other.cost_nano_usd),
            wall_time_ms: self.wall_time_ms.or(other.wall_time_ms),
        }
    }

    /// The tighter one of both, limit by limit.
    #[must_use]
    pub fn tightest(self, other: Self) -> Self {
        fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
            a.into_iter().chain(b).min()
        }
        Self {
            steps: least(self.steps, other.steps),
            tokens: least(self.tokens, other.tokens),
            cost_nano_usd: least(self.cost_nano_usd, other.cost_nano_usd),
            wall_time_ms: least(self.wall_time_ms, other.wall_time_ms),
        }
    }
}

/// Whose use a budget limits.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum BudgetScope {
    /// One run with those of its sub-agents.
    Run,
    /// A session with those of its sub-agents.
    Session,
    /// A user in a project.
    User,
    /// A user in a project in a month.
    UserMonth,
    /// A project.
    Project,
    /// A project in a month.
    ProjectMonth,
    /// A user in all projects of the server.
    ServerUser,
    /// A user in all projects of the server in a month.
    ServerUserMonth,
}

impl BudgetScope {
    /// As in a sentence.
    fn words(self) -> &'static str {
        match self {
            Self::Run => "this run",
            Self::Session => "this session",
            Self::User => "who started the run, in this project",
            Self::UserMonth => "who started the run, in this project and month",
            Self::Project => "this project",
            Self::ProjectMonth => "this project in this month",
            Self::ServerUser => "who started the run, on this server",
            Self::ServerUserMonth => "who started the run, on this server and in this month",
        }
    }

    /// What can be done about it.
    fn remedy(self) -> &'static str {
        match self {
            Self::Run => {
                "send another message to go on in a new run, or let an administrator of the project raise `settings.budgets.run`"
            }
            Self::Session => {
                "raise the session's `budget`, let an administrator of the project raise `settings.budgets.session`, or begin another session"
            }
            Self::User => "an administrator of the project can raise `settings.budgets.user`",
            Self::UserMonth => {
                "wait for the next month, or let an administrator of the project raise `settings.budgets.userMonth`"
            }
            Self::Project => "an administrator of the project can raise `settings.budgets.project`",
            Self::ProjectMonth => {
                "wait for the next month, or let an administrator of the project raise `settings.budgets.projectMonth`"
            }
            Self::ServerUser => "an administrator of the server can raise the user's budget",
            Self::ServerUserMonth => {
                "wait for the next month, or let an administrator of the server raise the user's budget"
            }
        }
    }
}

/// What a budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BudgetLimit {
    /// Model calls.
    Steps,
    /// Tokens.
    Tokens,
    /// Billionths of a US dollar.
    CostNanoUsd,
    /// Milliseconds of work.
    WallTimeMs,
}

impl fmt::Display for BudgetLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steps => "model calls",
            Self::Tokens => "tokens",
            Self::CostNanoUsd => "billionths of a US dollar",
            Self::WallTimeMs => "milliseconds of work",
        })
    }
}

/// A budget that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetExceeded {
    /// Whose it is.
    pub scope: BudgetScope,
    /// What it limits.
    pub limit: BudgetLimit,
    /// The most of that.
    pub max: u64,
    /// What was used of it; null where the price of the model is not known, so that nobody can tell what the
    /// next step would cost.
    pub used: Option<u64>,
}

impl BudgetExceeded {
    /// What happened and what to do, in a sentence for people.
    pub fn message(&self) -> String {
        let Self { scope, limit, max, used } = self;
        let whose = scope.words();
        match used {
            Some(used) => {
                format!(
                    "the budget of {whose} is used up: {used} of {max} {limit}; {}",
                    scope.remedy()
                )
            }
            None => format!(
                "the budget of {whose} limits the cost, and the price of this model is not known; choose another model, or let an administrator of the server set its price"
            ),
        }
    }

    /// The error of the run that it ends.
    pub fn to_error(&self) -> ApiError {
        let reason = if self.used.is_some() { "budget_used_up" } else { "price_unknown" };
        let error = ApiError::new(ErrorCode::BudgetExceeded, self.message()).reason(reason);
        let details = serde_json::to_value(self).unwrap_or_default();
        let details = details.as_object().cloned().unwrap_or_default();
        let error =
            details.into_iter().fold(error, |error, (key, value)| error.detail(&key, value));
        ApiError { retryable: false, ..error }
    }
}

/// The budgets that the settings of a project set, as `settings.budgets`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectBudgets {
    /// Of each run.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub run: Budget,
    /// Of each session.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub session: Budget,
    /// Of each user, in this project.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub user: Budget,
    /// Of each user in each month, in this project.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub user_month: Budget,
    /// Of the project.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub project: Budget,
    /// Of the project in each month.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub project_month: Budget,
}

impl ProjectBudgets {
    /// These, and where they say nothing the others.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            run: self.run.or(other.run),
            session: self.session.or(other.session),
            user: self.user.or(other.user),
            user_month: self.user_month.or(other.user_month),
            project: self.project.or(other.project),
            project_month: self.project_month.or(other.project_month),
        }
    }
}

/// The budgets of a user in all projects together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserBudgets {
    /// For ever.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub total: Budget,
    /// In each month, of UTC.
    #[serde(default, skip_serializing_if = "Budget::is_empty")]
    pub month: Budget,
}

/// What one user used of one model on one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    /// The day in UTC, as `2026-11-29`.
    pub day: String,
    /// The project; absent where all rows are of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// Who started the runs.
    pub user_id: UserId,
    /// The model.
    #[serde(flatten)]
    pub model: ModelRef,
    /// The table of prices that the costs are of; absent where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_version: Option<String>,
    /// The sum.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// Reads what was used in a project, or in one of its sessions with those of its sub-agents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageGet {
    /// The session; the whole project without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The project that the request is about anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    /// From the day on in which this moment lies: milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// Up to the day before the one in which this moment lies, that one included where it is past its
    /// beginning: milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
}

/// Sets the most that a session may use with its sub-agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionBudgetSet {
    /// The session.
    pub session_id: SessionId,
    /// In place of the budget before; an empty one is no limit.
    pub budget: Budget,
}

/// What was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageReport {
    /// All rows together.
    pub total: UsageTotals,
    /// By day, user, model and table of prices, in this order.
    pub rows: Vec<UsageRow>,
}

/// Reads what users used in all projects, those that are deleted included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerUsageGet {
    /// One user; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// As in `usage.get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<i64>,
    /// As in `usage.get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<i64>,
}

/// Lists the models that can be asked, with what is known of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelList {
    /// Of one provider; of all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Most models in one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the answer before this one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Models that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelPage {
    /// By provider and name.
    pub models: Vec<ListedModel>,
    /// The version of the catalogue.
    pub catalog_version: String,
    /// Where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Whether there are more.
    pub has_more: bool,
}

/// Sets what is known of a model, in place of what the catalogue says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelSet {
    /// The model.
    #[serde(flatten)]
    pub model: ModelRef,
    /// What is known better; what is absent stays as the catalogue has it.
    pub facts: ModelFacts,
}

/// Forgets what was set of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelReset {
    /// The model.
    #[serde(flatten)]
    pub model: ModelRef,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelPayload {
    /// As it is now.
    pub model: ListedModel,
}

/// Reads the budgets of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserBudgetGet {
    /// The user.
    pub user_id: UserId,
}

/// Sets the budgets of a user, in place of those that there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserBudgetSet {
    /// The user.
    pub user_id: UserId,
    /// The budgets; what is absent is as the configuration has it.
    pub budgets: UserBudgets,
}

/// The budgets of a user, and what they used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserBudgetPayload {
    /// The user.
    pub user_id: UserId,
    /// What was set for them.
    pub budgets: UserBudgets,
    /// What counts: what was set, and the configuration where nothing is.
    pub effective: UserBudgets,
    /// What they used in all.
    pub total: UsageTotals,
    /// What they used in this month.
    pub month: UsageTotals,
}
