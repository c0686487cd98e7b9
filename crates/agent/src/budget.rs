//! Whether a run may take another step: the budgets that count for it against what was used.

use iris_protocol::{Budget, BudgetExceeded, BudgetLimit, BudgetScope, UsageTotals};

/// A budget and what was used of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetUse {
    /// Whose it is.
    pub scope: BudgetScope,
    /// How much there may be.
    pub budget: Budget,
    /// How much there was.
    pub used: UsageTotals,
}

/// The first budget of which nothing is left. One of the cost is used up, too, where nobody knows what the
/// next step would cost: an unknown price is not nothing.
pub fn exceeded(uses: &[BudgetUse], is_price_known: bool) -> Option<BudgetExceeded> {
    uses.iter().find_map(|one| one.exceeded(is_price_known))
}

impl BudgetUse {
    fn exceeded(&self, is_price_known: bool) -> Option<BudgetExceeded> {
        let Self { scope, budget, used } = self;
        let cost = u64::try_from(used.known_cost_nano_usd).unwrap_or(0);
        let limits = [
            (BudgetLimit::Steps, budget.steps, used.steps),
            (BudgetLimit::Tokens, budget.tokens, used.tokens()),
            (BudgetLimit::CostNanoUsd, budget.cost_nano_usd, cost),
            (BudgetLimit::WallTimeMs, budget.wall_time_ms, used.wall_time_ms),
        ];
        limits.into_iter().find_map(|(limit, max, used)| {
            let max = max?;
            let is_told = is_price_known || limit != BudgetLimit::CostNanoUsd;
            let is_used_up = used >= max;
            let used = (is_told || is_used_up).then_some(used);
            (is_used_up || !is_told).then_some(BudgetExceeded { scope: *scope, limit, max, used })
        })
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::Usage;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn used(steps: u64, tokens: u64, cost: i64, wall_time_ms: u64) -> UsageTotals {
        let usage = Usage { input_tokens: tokens, cost_nano_usd: Some(cost), ..Usage::default() };
        UsageTotals::of_step(usage, steps, wall_time_ms)
    }

    #[test]
    fn a_budget_of_cost_refuses_what_nobody_knows_the_price_of() {
        let budget = Budget { cost_nano_usd: Some(10), ..Budget::default() };
        let of = |cost| BudgetUse { scope: BudgetScope::Run, budget, used: used(1, 1, cost, 0) };
        assert_eq!(exceeded(&[of(9)], true), None);
        let found = exceeded(&[of(9)], false).unwrap();
        assert_eq!((found.limit, found.used), (BudgetLimit::CostNanoUsd, None));
        assert_eq!(found.to_error().details["reason"], "price_unknown");
        let found = exceeded(&[of(10)], false).unwrap();
        assert_eq!(found.used, Some(10));
        assert_eq!(found.to_error().details["reason"], "budget_used_up");
        assert!(!found.to_error().retryable);
    }

    prop_compose! {
        fn budgets()(
            steps in option::of(0_u64..9), tokens in option::of(0_u64..900),
            cost_nano_usd in option::of(0_u64..900), wall_time_ms in option::of(0_u64..900),
        ) -> Budget {
            Budget { steps, tokens, cost_nano_usd, wall_time_ms }
        }
    }

    prop_compose! {
        fn uses()(
            steps in 0_u64..9, tokens in 0_u64..900, cost in 0_i64..900, wall in 0_u64..900,
        ) -> UsageTotals {
            used(steps, tokens, cost, wall)
        }
    }

    proptest! {
        /// INV-7: a step is taken exactly while something is left of every limit.
        #[test]
        fn nothing_is_taken_beyond_a_limit(budget in budgets(), used in uses()) {
            let one = BudgetUse { scope: BudgetScope::Session, budget, used };
            let cost = u64::try_from(used.known_cost_nano_usd).unwrap();
            let left = |max: Option<u64>, used: u64| max.is_none_or(|max| used < max);
            let is_left = left(budget.steps, used.steps)
                && left(budget.tokens, used.tokens())
                && left(budget.cost_nano_usd, cost)
                && left(budget.wall_time_ms, used.wall_time_ms);
            prop_assert_eq!(exceeded(&[one], true).is_none(), is_left);
        }

        /// What counts for more than one is counted for each: the order of budgets does not matter.
        #[test]
        fn the_tightest_of_two_budgets_is_both(a in budgets(), b in budgets(), used in uses()) {
            let of = |budget| BudgetUse { scope: BudgetScope::Run, budget, used };
            let both = exceeded(&[of(a), of(b)], true).is_some();
            prop_assert_eq!(exceeded(&[of(a.tightest(b))], true).is_some(), both);
            prop_assert_eq!(exceeded(&[of(b), of(a)], true).is_some(), both);
        }

        /// More use never makes a budget last longer.
        #[test]
        fn a_budget_that_is_used_up_stays_so(budget in budgets(), used in uses(), more in uses()) {
            let of = |used| BudgetUse { scope: BudgetScope::Run, budget, used };
            let mut later = used;
            later.add(&more);
            let before = exceeded(&[of(used)], true).is_some();
            prop_assert!(!before || exceeded(&[of(later)], true).is_some());
        }
    }
}
