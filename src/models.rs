//! `iris model`: the models that a server can ask, what they can do and what they cost.

use std::process::ExitCode;

use clap::Subcommand;
use iris_client::Client;
use iris_protocol::{FactsSource, ListedModel, ModelList};

use crate::account::{Asked, with};
use crate::remote::{self, Lines, RemoteError};

/// Billionths of a US dollar in a thousandth of one.
const NANO_PER_MILLI: u64 = 1_000_000;

/// `iris model`.
#[derive(Clone, clap::Args)]
pub struct ModelOptions {
    #[command(subcommand)]
    verb: ModelVerb,
}

#[derive(Clone, Subcommand)]
enum ModelVerb {
    /// List the models that can be asked, with their prices and what they can do
    List(Wanted),
}

#[derive(Clone, clap::Args)]
struct Wanted {
    /// Only models of this provider
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// Runs the command.
pub fn run(options: &ModelOptions) -> ExitCode {
    let ModelVerb::List(wanted) = &options.verb;
    let listed = with(&wanted.asked, async |client: &Client, lines: &Lines| {
        list(client, lines, wanted.provider.clone()).await
    });
    remote::block_on("model", listed)
}

async fn list(
    client: &Client,
    lines: &Lines,
    provider_id: Option<String>,
) -> Result<(), RemoteError> {
    let mut page = ModelList { provider_id, ..ModelList::default() };
    loop {
        let answer = client.over_rest(&page).await?;
        for model in &answer.models {
            lines.put(&line(model), model)?;
        }
        if answer.next_cursor.is_none() {
            return Ok(());
        }
        page.cursor = answer.next_cursor;
    }
}

fn line(listed: &ListedModel) -> String {
    let (model, facts) = (&listed.model, &listed.facts);
    let mut words = vec![format!("{}/{}", model.provider_id, model.model_id)];
    if listed.is_default {
        words.push("(default)".to_owned());
    }
    let price = facts.prices.as_ref().and_then(|tiers| tiers.first());
    words.push(match price {
        Some(tier) => {
            let [input, output] = [tier.input_nano_usd, tier.output_nano_usd].map(dollars);
            format!("{input} in, {output} out for a million tokens")
        }
        None if listed.source == FactsSource::Local => "free".to_owned(),
        None => "price unknown".to_owned(),
    });
    for (count, of) in [(facts.context_tokens, "context"), (facts.output_tokens, "output")] {
        words.extend(count.map(|count| format!("{of} {count}")));
    }
    let abilities = [
        (facts.tools, "tools"),
        (facts.images, "images"),
        (facts.reasoning, "reasoning"),
        (facts.structured_output, "structured-output"),
    ];
    words.extend(
        abilities
            .into_iter()
            .filter(|(can, _)| *can == Some(true))
            .map(|(_, what)| what.to_owned()),
    );
    words.join("  ")
}

/// An amount, to the thousandth.
fn dollars(nano_usd: u64) -> String {
    let milli = nano_usd / NANO_PER_MILLI;
    format!("${}.{:03}", milli / 1_000, milli % 1_000)
}

#[cfg(test)]
mod tests {
    use iris_protocol::{ModelFacts, ModelRef, PriceTier};

    use super::*;

    #[test]
    fn a_model_is_told_in_one_line() {
        let mut model = ListedModel {
            model: ModelRef { provider_id: "a".to_owned(), model_id: "b".to_owned() },
            is_default: true,
            source: FactsSource::Catalog,
            facts: ModelFacts {
                context_tokens: Some(200_000),
                images: Some(false),
                tools: Some(true),
                prices: Some(vec![PriceTier {
                    input_nano_usd: 3_000_000_000,
                    output_nano_usd: 15_250_000_000,
                    ..PriceTier::default()
                }]),
                ..ModelFacts::default()
            },
            price_version: None,
        };
        let expected =
            "a/b  (default)  $3.000 in, $15.250 out for a million tokens  context 200000  tools";
        assert_eq!(line(&model), expected);
        (model.facts, model.is_default) = (ModelFacts::default(), false);
        assert_eq!(line(&model), "a/b  price unknown");
        model.source = FactsSource::Local;
        assert_eq!(line(&model), "a/b  free");
    }
}
