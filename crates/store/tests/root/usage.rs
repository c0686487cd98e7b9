//! What users used in all projects: told again, told late, and told by a project that was restored.

use iris_protocol::{ModelRef, Usage, UsageTotals, UserBudgets, UserId};
use iris_store::Days;
use iris_store::project::DayUsed;
use iris_store::root::{RecordAudit, RecordUsage, SetUserBudgets};
use serde_json::json;

use crate::{NOW, Root, missing, project_id, user_id};

/// So many steps of the day of `NOW`, of one model and user.
fn used(steps: u64, revision: i64) -> DayUsed {
    let usage = Usage {
        input_tokens: steps * 10,
        cost_nano_usd: i64::try_from(steps * 7).ok(),
        ..Usage::default()
    };
    DayUsed {
        day: NOW / 86_400_000,
        user_id: user_id(1),
        model: ModelRef { provider_id: "p".into(), model_id: "m".into() },
        price_version: "v1".into(),
        totals: UsageTotals::of_step(usage, steps, 5),
        revision,
    }
}

fn tell(project: u128, epoch: &str, days: Vec<DayUsed>) -> RecordUsage {
    RecordUsage { project_id: project_id(project), epoch: epoch.to_owned(), days }
}

async fn total(root: &Root) -> UsageTotals {
    let report = root.reader.usage(None, Days::between(None, None)).await.unwrap();
    let (ever, month) = root.reader.usage_of_user(&user_id(1), NOW).await.unwrap();
    assert_eq!((ever, month), (report.total, report.total), "sums and rows are the same");
    report.total
}

#[tokio::test]
async fn what_is_told_twice_counts_once_and_projects_add_up() {
    let root = Root::new();
    for (steps, revision) in [(2, 1), (2, 1), (5, 2)] {
        root.run(tell(1, "a", vec![used(steps, revision)])).await.unwrap();
    }
    // Read before the last one, and told after it: what follows is not counted twice.
    root.run(tell(1, "a", vec![used(2, 1)])).await.unwrap();
    assert_eq!(total(&root).await.steps, 5);
    root.run(tell(1, "a", vec![used(5, 3)])).await.unwrap();
    assert_eq!(total(&root).await.steps, 5);
    assert_eq!(total(&root).await.known_cost_nano_usd, 35);
    root.run(tell(2, "a", vec![used(1, 1)])).await.unwrap();
    assert_eq!(total(&root).await.steps, 6);
    root.run(tell(2, "a", vec![])).await.unwrap();
    let head = root.reader.usage_head(&project_id(1), "a").await.unwrap();
    assert_eq!(head, 3);
    assert_eq!(root.reader.usage_head(&project_id(9), "a").await.unwrap(), 0);
    let nobody = root.reader.usage(Some(user_id(2)), Days::between(None, None)).await.unwrap();
    assert_eq!((nobody.rows.len(), nobody.total.usage.cost_nano_usd), (0, Some(0)));
}

#[tokio::test]
async fn what_was_used_before_a_restore_stays_used_and_is_not_counted_again() {
    let root = Root::new();
    root.run(tell(1, "a", vec![used(5, 9)])).await.unwrap();
    // The project knows of three of the five steps, and tells all that it knows.
    assert_eq!(root.reader.usage_head(&project_id(1), "b").await.unwrap(), 0);
    root.run(tell(1, "b", vec![used(3, 4)])).await.unwrap();
    assert_eq!(total(&root).await.steps, 5);
    assert_eq!(root.reader.usage_head(&project_id(1), "b").await.unwrap(), 4);
    root.run(tell(1, "b", vec![used(4, 5)])).await.unwrap();
    assert_eq!(total(&root).await.steps, 6, "a new step is one more");
}

#[tokio::test]
async fn sums_do_not_overflow() {
    let root = Root::new();
    let mut most = used(1, 1);
    most.totals.usage.input_tokens = u64::MAX;
    most.totals.known_cost_nano_usd = i64::MAX;
    root.run(tell(1, "a", vec![most.clone()])).await.unwrap();
    root.run(tell(2, "a", vec![most])).await.unwrap();
    let (total, _) = root.reader.usage_of_user(&user_id(1), NOW).await.unwrap();
    assert_eq!(total.known_cost_nano_usd, i64::MAX);
    assert!(total.usage.input_tokens >= i64::MAX.cast_unsigned());
}

#[tokio::test]
async fn budgets_are_those_of_users_who_are_there() {
    let root = Root::new();
    let set = |id: UserId, steps| SetUserBudgets {
        id,
        budgets: serde_json::from_value(json!({ "month": { "steps": steps } })).unwrap(),
        audit: RecordAudit {
            at: NOW,
            user_id: Some(user_id(1)),
            action: "budget.set".into(),
            target: "u".into(),
            details: json!({}),
            ..RecordAudit::default()
        },
    };
    assert_eq!(missing(root.run(set(user_id(1), 1)).await), "user");
    root.user(1).await;
    root.run(set(user_id(1), 1)).await.unwrap();
    let changed = root.run(set(user_id(1), 2)).await.unwrap();
    assert_eq!(root.reader.user_budgets(&user_id(1)).await.unwrap(), changed);
    assert_eq!(root.reader.user_budgets(&user_id(2)).await.unwrap(), UserBudgets::default());
    assert_eq!(root.reader.audit(9).await.unwrap().len(), 2);
}
