//! What an answer cost, in whole billionths of a US dollar.

use iris_protocol::{ApiError, ModelFacts, PriceTier, Usage};

use crate::ReportedUsage;

/// Tokens that a price is for.
const TOKENS_OF_PRICE: u128 = 1_000_000;
/// Most tiers of one model.
const TIERS_MAX: usize = 8;
/// The highest price that is believed: a million dollars for a million tokens.
const PRICE_MAX: u64 = 1_000_000_000_000_000;
/// The classes of service that the prices are for, as providers call them.
const STANDARD_TIERS: &[&str] = &["default", "standard", "auto", "on_demand"];

/// What `usage` costs by these prices, rounded up. None where the prices do not say.
///
/// Not said is what another class of service costs than the usual one, and what the provider's own tools
/// cost.
pub fn cost(prices: &[PriceTier], usage: &ReportedUsage) -> Option<i64> {
    let is_standard = |tier: &String| STANDARD_TIERS.contains(&tier.to_ascii_lowercase().as_str());
    if !usage.service_tier.as_ref().is_none_or(is_standard) || usage.tokens.server_tool_calls > 0 {
        return None;
    }
    cost_of_tokens(prices, &usage.tokens)
}

fn cost_of_tokens(prices: &[PriceTier], usage: &Usage) -> Option<i64> {
    let tier = prices.iter().rev().find(|tier| {
        tier.above_input_tokens == 0 || tier.above_input_tokens < usage.input_tokens
    })?;
    // A part of a count is not more than the count, whatever was reported.
    let read = usage.cache_read_tokens.min(usage.input_tokens);
    let written = usage.cache_write_tokens.min(usage.input_tokens - read);
    let written_long = usage.cache_write_1h_tokens.min(written);
    let reasoning = usage.reasoning_tokens.min(usage.output_tokens);
    let long_price = if written_long > 0 { tier.cache_write_1h_nano_usd? } else { 0 };
    let pieces = [
        (usage.input_tokens - read - written, tier.input_nano_usd),
        (read, tier.cache_read_nano_usd.unwrap_or(tier.input_nano_usd)),
        (written - written_long, tier.cache_write_nano_usd.unwrap_or(tier.input_nano_usd)),
        (written_long, long_price),
        (usage.output_tokens - reasoning, tier.output_nano_usd),
        (reasoning, tier.reasoning_nano_usd.unwrap_or(tier.output_nano_usd)),
    ];
    // A product of two `u64` fits; of their sum only that it is too much matters.
    let total = pieces.iter().fold(0_u128, |total, (tokens, price)| {
        total.saturating_add(u128::from(*tokens) * u128::from(*price))
    });
    let nano = total.div_ceil(TOKENS_OF_PRICE);
    Some(i64::try_from(nano).unwrap_or(i64::MAX))
}

/// Refuses facts that no model has.
///
/// # Errors
/// `INVALID_REQUEST` with reason `invalid_model_facts`.
pub fn check_facts(facts: &ModelFacts) -> Result<(), ApiError> {
    let refuse = |message: &str| Err(ApiError::invalid(message).reason("invalid_model_facts"));
    let counts = [facts.context_tokens, facts.output_tokens, facts.prompt_cache_min_tokens];
    if counts.iter().flatten().any(|tokens| *tokens == 0 || *tokens > TOKENS_MAX) {
        return refuse("a number of tokens is from 1 to 1000000000");
    }
    let known = |effort: &String| super::effort(effort).is_some();
    if facts.efforts.as_ref().is_some_and(|efforts| efforts.len() > 6 || !efforts.iter().all(known))
    {
        return refuse("`efforts` are of `minimal`, `low`, `medium`, `high`, `xhigh` and `max`");
    }
    let Some(prices) = &facts.prices else { return Ok(()) };
    let rises = prices.iter().map(|tier| tier.above_input_tokens).is_sorted_by(|a, b| a < b);
    let begins = prices.first().is_some_and(|tier| tier.above_input_tokens == 0);
    if !rises || !begins || prices.len() > TIERS_MAX {
        return refuse(
            "`prices` has 1 to 8 tiers: the first one has `aboveInputTokens` 0, which rises after it",
        );
    }
    let is_dear = |tier: &PriceTier| {
        let others = [
            tier.cache_read_nano_usd,
            tier.cache_write_nano_usd,
            tier.cache_write_1h_nano_usd,
            tier.reasoning_nano_usd,
        ];
        let all = others.into_iter().flatten().chain([tier.input_nano_usd, tier.output_nano_usd]);
        all.max().is_some_and(|price| price > PRICE_MAX)
    };
    if prices.iter().any(is_dear) {
        return refuse("a price is at most 10^15 billionths of a dollar for a million tokens");
    }
    Ok(())
}

/// Most tokens that a model is said to take or to give.
pub(super) const TOKENS_MAX: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tiers() -> Vec<PriceTier> {
        let small = PriceTier {
            above_input_tokens: 0,
            input_nano_usd: 3_000_000_000,
            output_nano_usd: 15_000_000_000,
            cache_read_nano_usd: Some(300_000_000),
            cache_write_nano_usd: Some(3_750_000_000),
            cache_write_1h_nano_usd: Some(6_000_000_000),
            reasoning_nano_usd: None,
        };
        let large = PriceTier {
            above_input_tokens: 200_000,
            input_nano_usd: 6_000_000_000,
            output_nano_usd: 22_500_000_000,
            ..PriceTier::default()
        };
        vec![small, large]
    }

    fn price(usage: Usage) -> Option<i64> {
        cost(&tiers(), &ReportedUsage::from(usage))
    }

    fn tokens(input_tokens: u64, output_tokens: u64) -> Usage {
        Usage { input_tokens, output_tokens, ..Usage::default() }
    }

    #[test]
    fn every_kind_of_token_has_its_price() {
        assert_eq!(price(tokens(1_000_000, 0)), Some(6_000_000_000), "above the tier");
        assert_eq!(price(tokens(200_000, 10)), Some(600_000_000 + 150_000), "not above it");
        let usage = Usage {
            cache_read_tokens: 400,
            cache_write_tokens: 300,
            cache_write_1h_tokens: 100,
            reasoning_tokens: 50,
            ..tokens(1_000, 100)
        };
        let expected = 300 * 3_000 + 400 * 300 + 200 * 3_750 + 100 * 6_000 + 100 * 15_000;
        assert_eq!(price(usage), Some(expected));
        assert_eq!(price(Usage::default()), Some(0));
    }

    #[test]
    fn a_part_of_a_billionth_counts_as_one() {
        let tier = PriceTier { input_nano_usd: 1, ..PriceTier::default() };
        assert_eq!(cost_of_tokens(&[tier], &tokens(1, 0)), Some(1));
    }

    #[test]
    fn what_the_prices_do_not_say_is_unknown_and_not_nothing() {
        assert_eq!(cost(&[], &ReportedUsage::from(tokens(1, 1))), None);
        let mut usage = ReportedUsage::from(tokens(1, 1));
        usage.service_tier = Some("priority".into());
        assert_eq!(cost(&tiers(), &usage), None);
        usage.service_tier = Some("Standard".into());
        assert!(cost(&tiers(), &usage).is_some());
        let searched = Usage { server_tool_calls: 1, ..tokens(1, 1) };
        assert_eq!(price(searched), None);
        let long = Usage { cache_write_tokens: 9, cache_write_1h_tokens: 9, ..tokens(300_000, 1) };
        assert_eq!(price(long), None, "the second tier has no price for an hour");
    }

    #[test]
    fn prices_that_cannot_be_are_refused() {
        let with = |prices| ModelFacts { prices: Some(prices), ..ModelFacts::default() };
        assert!(check_facts(&with(tiers())).is_ok());
        let mut reversed = tiers();
        reversed.reverse();
        let dear = PriceTier { cache_read_nano_usd: Some(PRICE_MAX + 1), ..PriceTier::default() };
        for prices in [vec![], reversed, vec![dear]] {
            assert!(check_facts(&with(prices)).is_err());
        }
        let none = ModelFacts { context_tokens: Some(0), ..ModelFacts::default() };
        assert!(check_facts(&none).is_err());
        let odd = ModelFacts { efforts: Some(vec!["huge".into()]), ..ModelFacts::default() };
        assert!(check_facts(&odd).is_err());
    }

    prop_compose! {
        fn any_usage()(
            input_tokens in any::<u64>(), output_tokens in any::<u64>(),
            reasoning_tokens in any::<u64>(), cache_read_tokens in any::<u64>(),
            cache_write_tokens in any::<u64>(),
        ) -> Usage {
            Usage {
                input_tokens, output_tokens, reasoning_tokens, cache_read_tokens,
                cache_write_tokens, ..Usage::default()
            }
        }
    }

    proptest! {
        /// Whatever providers report and operators set, nothing overflows and nothing is negative.
        #[test]
        fn a_cost_is_never_negative(usage in any_usage(), price in any::<u64>()) {
            let tier = PriceTier {
                input_nano_usd: price, output_nano_usd: price, ..PriceTier::default()
            };
            let cost = cost_of_tokens(&[tier], &usage);
            prop_assert!(cost.is_some_and(|cost| cost >= 0));
        }

        /// All tokens are charged for exactly once: with one price for all kinds only the sums matter.
        #[test]
        fn the_kinds_of_tokens_add_up(
            input in 0_u64..1 << 40, output in 0_u64..1 << 40, parts in any_usage(), price in 0_u64..1 << 30,
        ) {
            let usage = Usage { input_tokens: input, output_tokens: output, ..parts };
            let tier = PriceTier {
                input_nano_usd: price, output_nano_usd: price, ..PriceTier::default()
            };
            let expected = (u128::from(input + output) * u128::from(price)).div_ceil(TOKENS_OF_PRICE);
            let cost = cost_of_tokens(&[tier], &usage).map(i128::from);
            prop_assert_eq!(cost, i128::try_from(expected).ok());
        }

        /// More tokens never cost less, also where a tier begins.
        #[test]
        fn more_tokens_never_cost_less(input in 0_u64..400_000, output in 0_u64..100_000, more in 0_u64..400_000) {
            prop_assert!(price(tokens(input, output)) <= price(tokens(input + more, output)));
            prop_assert!(price(tokens(input, output)) <= price(tokens(input, output + more)));
        }
    }
}
