//! The budgets that count for a run, and whether one of them is used up.

use iris_agent::{BudgetUse, exceeded};
use iris_protocol::{
    ApiError, Budget, BudgetScope, ModelRef, ProjectBudgets, RunId, UserBudgets, UserId,
};
use iris_store::StoreError;
use iris_store::project::Spending;
use iris_store::root::RunFacts;
use serde_json::{Map, Value};

use crate::agents::find_agent;
use crate::session::SessionPlace;

/// Where the settings of a project have them.
const SETTING: &str = "budgets";

/// What counts where nobody says otherwise: the operator's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BudgetSettings {
    /// In each project, unless its settings say otherwise.
    pub project: ProjectBudgets,
    /// For each user over all projects, unless an administrator says otherwise.
    pub user: UserBudgets,
}

/// Refuses settings of a project with budgets that cannot be read.
pub(crate) fn check(settings: &Map<String, Value>) -> Result<(), ApiError> {
    read(settings).map(drop).map_err(|error| {
        let message = format!("`settings.budgets`: {error}");
        ApiError::invalid(message).reason("invalid_settings")
    })
}

fn read(settings: &Map<String, Value>) -> Result<ProjectBudgets, serde_json::Error> {
    match settings.get(SETTING) {
        Some(budgets) => serde_json::from_value(budgets.clone()),
        None => Ok(ProjectBudgets::default()),
    }
}

/// What a user may use in all projects: what was set for them, and the operator's choice.
pub(crate) fn of_user(set: UserBudgets, settings: &BudgetSettings) -> UserBudgets {
    let UserBudgets { total, month } = settings.user;
    UserBudgets { total: set.total.or(total), month: set.month.or(month) }
}

/// What the root database says of a run of `starter` that asks a model.
///
/// # Errors
/// Those of the root database.
pub(crate) async fn run_facts(
    place: &SessionPlace,
    starter: &UserId,
    model: &ModelRef,
) -> Result<RunFacts, ApiError> {
    let (root, project_id) = (&place.project.root, &place.project.id);
    let facts = root.run_facts(starter, project_id, &model.provider_id).await;
    facts.map_err(|error| error.to_api())
}

/// What the project knows of what was used, as far as it counts for a run of `starter`.
///
/// # Errors
/// Those of the project's database.
pub(crate) async fn spending(
    place: &SessionPlace,
    run_id: &RunId,
    starter: &UserId,
) -> Result<Spending, ApiError> {
    let (id, at) = (place.id.clone(), place.services.clock.now_ms());
    let spending = place.project.reader.spending(id, run_id.clone(), starter.clone(), at).await;
    spending.map_err(|error| error.to_api())
}

/// Refuses the next step of a run where a budget is used up: `BUDGET_EXCEEDED`.
pub(crate) async fn refuse_if_used_up(
    place: &SessionPlace,
    starter: (&UserId, &RunFacts),
    spending: &Spending,
    is_price_known: bool,
) -> Result<(), ApiError> {
    let uses = uses(place, starter, spending).await.map_err(|error| error.to_api())?;
    match exceeded(&uses, is_price_known) {
        Some(exceeded) => Err(exceeded.to_error()),
        None => Ok(()),
    }
}

async fn uses(
    place: &SessionPlace,
    (starter, facts): (&UserId, &RunFacts),
    spending: &Spending,
) -> Result<Vec<BudgetUse>, StoreError> {
    let (project, services) = (&place.project, &place.services);
    let at = services.clock.now_ms();
    // What was written before anybody checked it limits nothing.
    let of_project = read(&facts.settings).unwrap_or_default().or(services.budgets.read().project);
    let mut uses = of_spending(&of_project, spending);
    for (agent, used) in &spending.runs {
        let Some(name) = agent else { continue };
        let agent = find_agent(project, services, name).await?;
        let budget = agent.and_then(|agent| agent.budget).unwrap_or_default();
        uses.push(BudgetUse { scope: BudgetScope::Run, budget, used: *used });
    }
    let UserBudgets { total, month } = of_user(facts.budgets, &services.budgets.read());
    if !total.is_empty() || !month.is_empty() {
        // What they used here counts, too. Where that cannot be told, it counts a little later.
        if let Err(error) = project.usage.tell().await {
            tracing::warn!(project.id = %project.id, %error, "what was used could not be told");
        }
        let (ever, in_month) = project.root.usage_of_user(starter, at).await?;
        uses.push(BudgetUse { scope: BudgetScope::ServerUser, budget: total, used: ever });
        let scope = BudgetScope::ServerUserMonth;
        uses.push(BudgetUse { scope, budget: month, used: in_month });
    }
    uses.retain(|one| !one.budget.is_empty());
    Ok(uses)
}

fn of_spending(budgets: &ProjectBudgets, spending: &Spending) -> Vec<BudgetUse> {
    let one = |scope, budget: Budget, used| BudgetUse { scope, budget, used };
    let runs = spending.runs.iter().map(|(_, used)| one(BudgetScope::Run, budgets.run, *used));
    let sessions = spending
        .sessions
        .iter()
        .map(|(own, used)| one(BudgetScope::Session, budgets.session.tightest(*own), *used));
    let others = [
        one(BudgetScope::User, budgets.user, spending.user),
        one(BudgetScope::UserMonth, budgets.user_month, spending.user_month),
        one(BudgetScope::Project, budgets.project, spending.project),
        one(BudgetScope::ProjectMonth, budgets.project_month, spending.project_month),
    ];
    runs.chain(sessions).chain(others).collect()
}
