//! What was used is counted with the step, for all that it is about, and told with rising numbers.

use iris_protocol::{ErrorCode, FinishReason, RunStatus, Usage, UsageTotals};
use iris_store::Days;
use iris_store::project::{FinishRun, PurgeSession, Rest, Spent};

use crate::fixture::*;

pub(crate) fn always() -> Days {
    Days::between(None, None)
}

/// The totals of so many steps of the fixture.
fn totals(steps: u64) -> UsageTotals {
    let mut sum = UsageTotals::default().with_cost();
    for _ in 0..steps {
        sum.add(&UsageTotals::of_step(usage(5), 1, 3));
    }
    sum
}

#[tokio::test]
async fn a_step_is_counted_once_for_its_run_its_session_its_user_and_the_project() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![])).await.unwrap();
    fixture.write(step(1, 1, vec![])).await.unwrap();
    let spending = fixture.reader().spending(session_id(), run_id(1), ann(), NOW).await.unwrap();
    assert_eq!(spending.runs, [(Some("default".to_owned()), totals(2))]);
    assert_eq!(spending.sessions[0].1, totals(2));
    for sum in [spending.user, spending.user_month, spending.project, spending.project_month] {
        assert_eq!(sum, totals(2));
    }
    let next_month = NOW + 31 * 86_400_000;
    let later = fixture.reader().spending(session_id(), run_id(1), ann(), next_month).await;
    let later = later.unwrap();
    assert_eq!((later.user_month.steps, later.project_month.steps, later.user.steps), (0, 0, 2));
    let others = fixture.reader().spending(session_id(), run_id(1), bob(), NOW).await.unwrap();
    assert_eq!((others.user.steps, others.project.steps), (0, 2));

    let report = fixture.reader().usage_report(Some(session_id()), always()).await.unwrap();
    assert_eq!((report.total, report.rows.len()), (totals(2), 1));
    assert_eq!(report.rows[0].price_version.as_deref(), Some("v1"));
    assert_eq!(report.rows[0].day, "2026-09-21");
    assert_eq!(fixture.reader().usage_report(None, always()).await.unwrap().total, totals(2));
    let before = Days::between(None, Some(NOW - 86_400_000));
    assert_eq!(fixture.reader().usage_report(None, before).await.unwrap().rows, []);
}

#[tokio::test]
async fn a_step_that_is_not_recorded_is_not_counted() {
    let fixture = Fixture::with_run().await;
    let mut twice = step(1, 0, vec![]);
    fixture.write(twice.clone()).await.unwrap();
    // A part with an id that is there.
    twice.step.as_mut().unwrap().index = 1;
    assert!(fixture.write(twice).await.is_err());
    let report = fixture.reader().usage_report(None, always()).await.unwrap();
    assert_eq!(report.total, totals(1));
}

#[tokio::test]
async fn a_cost_that_is_not_known_is_counted_as_such() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![])).await.unwrap();
    let mut unknown = step(1, 1, vec![]);
    let end = unknown.step.as_mut().unwrap();
    end.usage = Usage { cost_nano_usd: None, ..usage(5) };
    end.spent = Spent { wall_time_ms: 3, ..Spent::default() };
    fixture.write(unknown).await.unwrap();
    let report = fixture.reader().usage_report(None, always()).await.unwrap();
    assert_eq!(report.total.usage.cost_nano_usd, None);
    assert_eq!((report.total.unpriced_steps, report.total.known_cost_nano_usd), (1, 7));
    assert_eq!(report.rows.len(), 2, "a row for each table of prices");
}

#[tokio::test]
async fn what_changed_is_told_after_the_number_that_is_known() {
    let fixture = Fixture::with_run().await;
    assert_eq!(fixture.reader().used_after(0).await.unwrap(), []);
    fixture.write(step(1, 0, vec![])).await.unwrap();
    let first = fixture.reader().used_after(0).await.unwrap();
    assert_eq!((first.len(), first[0].totals), (1, totals(1)));
    assert_eq!(fixture.reader().used_after(first[0].revision).await.unwrap(), []);
    fixture.write(step(1, 1, vec![])).await.unwrap();
    let second = fixture.reader().used_after(first[0].revision).await.unwrap();
    assert_eq!((second.len(), second[0].totals), (1, totals(2)), "the whole day again");
    assert!(second[0].revision > first[0].revision);
}

#[tokio::test]
async fn what_a_session_used_goes_with_it_and_what_the_project_used_stays() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![])).await.unwrap();
    let finish = FinishRun {
        session_id: session_id(),
        run_id: run_id(1),
        message_id: answer_id(1),
        parts: vec![],
        provider_data: vec![],
        step: None,
        rest: Rest::default(),
        status: iris_protocol::RunStatus::Completed,
        finish_reason: FinishReason::Stop,
        error: None,
        at: NOW + 3,
    };
    fixture.write(finish).await.unwrap();
    fixture.write(PurgeSession { id: session_id(), by: ann(), at: NOW + 4 }).await.unwrap();
    let gone = fixture.reader().usage_report(Some(session_id()), always()).await.unwrap_err();
    assert_eq!(gone.code(), ErrorCode::NotFound);
    assert_eq!(fixture.reader().usage_report(None, always()).await.unwrap().total, totals(1));
    let spending = fixture.reader().spending(session_id(), run_id(1), ann(), NOW).await.unwrap();
    assert_eq!((spending.runs[0].1.steps, spending.sessions[0].1.steps), (0, 0));
    assert_eq!(spending.project, totals(1));
}

#[tokio::test]
async fn what_was_used_behind_the_last_step_counts_without_being_one() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![])).await.unwrap();
    let spent = Spent { wall_time_ms: 9, at_least_nano_usd: 11, ..Spent::default() };
    let rest = Rest { usage: Usage { cost_nano_usd: None, ..usage(5) }, spent };
    let end = finish(1, RunStatus::Cancelled, FinishReason::Cancelled);
    fixture.write(FinishRun { rest: rest.clone(), ..end }).await.unwrap();
    let total = fixture.reader().usage_report(None, always()).await.unwrap().total;
    let before = totals(1);
    assert_eq!((total.steps, total.unpriced_steps), (1, 1));
    // What it cost at least counts for budgets of money.
    assert_eq!(total.known_cost_nano_usd, before.known_cost_nano_usd + 11);
    assert_eq!(total.wall_time_ms, before.wall_time_ms + 9);
    let output = before.usage.output_tokens + rest.usage.output_tokens;
    assert_eq!((total.usage.output_tokens, total.usage.cost_nano_usd), (output, None));
    let session = fixture.reader().session(session_id()).await.unwrap().unwrap();
    assert_eq!(session.usage.output_tokens, output);
}
