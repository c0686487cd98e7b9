//! What is known of models: a list with a date that the server brings along, one of the operator's in its
//! place, and what administrators know better. Adapters go by what a model can do, never by its name.

mod decimal;
mod files;
mod money;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iris_protocol::{FactsSource, ListedModel, ModelFacts, ModelRef, PriceTier, Usage};
use parking_lot::RwLock;

use self::files::Listed;
pub use self::money::{check_facts, cost};
use crate::ReportedUsage;
use crate::provider::{Effort, ProviderConfig, ProviderKind};

/// The list that the server brings along; where it comes from stands in it.
const SNAPSHOT: &str = include_str!("catalog/snapshot.json");
/// Largest file of an operator, in bytes.
const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Most models of a list.
const MODELS_MAX: usize = 50_000;
/// Most models that administrators may say something of.
pub const OVERRIDES_MAX: usize = 1_000;
/// The version of prices that are known to be nothing.
const VERSION_LOCAL: &str = "local";

/// Why a list cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
    /// The file is too large.
    #[error("it is larger than {} MiB", FILE_BYTES_MAX >> 20)]
    TooLarge,
    /// It is no JSON.
    #[error("it is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// It is something else.
    #[error(
        "it is neither in the form of LiteLLM, nor of models.dev, nor of the server's own list"
    )]
    UnknownForm,
    /// Nothing is in it.
    #[error("no model is in it")]
    Empty,
    /// More is in it than there are models.
    #[error("{0} models are in it; at most {MODELS_MAX} are read")]
    TooMany(usize),
}

/// What is known of one model, and by which table it is charged for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// What is known; absent fields are unknown.
    pub facts: ModelFacts,
    /// Where it comes from.
    pub source: FactsSource,
    /// The version of the prices; none where there are none.
    pub price_version: Option<String>,
}

impl ModelInfo {
    /// The prices, where they are known.
    pub fn prices(&self) -> Option<&[PriceTier]> {
        self.facts.prices.as_deref()
    }
}

/// What was used, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The tokens, with the cost where it is known.
    pub usage: Usage,
    /// The version of the prices that the cost is of; none where it is not known.
    pub price_version: Option<String>,
}

/// What administrators say of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactsOverride {
    /// What they know better; what is absent stays as the list has it.
    pub facts: ModelFacts,
    /// Rises with each change: part of the version of the prices.
    pub revision: i64,
}

/// How a provider's models are found in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shelf {
    /// Whose models they are; none where nothing is known of them.
    vendor: Option<String>,
    /// Whether they cost nothing.
    is_free: bool,
}

/// One list of models.
struct Edition {
    listed: Listed,
    version: String,
}

/// Says what is known of the models of all configured providers. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    edition: Arc<RwLock<Arc<Edition>>>,
    shelves: Arc<BTreeMap<String, Shelf>>,
    overrides: Arc<RwLock<BTreeMap<ModelRef, FactsOverride>>>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edition = self.edition();
        let (version, models) = (&edition.version, edition.listed.len());
        let mut shown = f.debug_struct("Catalog");
        shown.field("version", version).field("models", &models).finish_non_exhaustive()
    }
}

impl Catalog {
    /// The list that the server brings along.
    ///
    /// # Errors
    /// Never for the list as it is; the tests see to that.
    pub fn builtin() -> Result<Self, CatalogError> {
        Self::from_text(SNAPSHOT, None)
    }

    /// The list in a file, in the form of `LiteLLM`, of models.dev or of the list of the server.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn from_file(path: &Path) -> Result<Self, CatalogError> {
        let size = std::fs::metadata(path).map_err(CatalogError::Unreadable)?.len();
        if size > FILE_BYTES_MAX {
            return Err(CatalogError::TooLarge);
        }
        let text = std::fs::read_to_string(path).map_err(CatalogError::Unreadable)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::from_text(&text, Some(&name))
    }

    fn from_text(text: &str, file: Option<&str>) -> Result<Self, CatalogError> {
        let (listed, version) = files::read(text)?;
        let version = match (file, version) {
            (None, version) => version.unwrap_or_default(),
            // Which file it was has to show afterwards, too.
            (Some(file), _) => format!("{file}@{:016x}", digest(text)),
        };
        Ok(Self {
            edition: Arc::new(RwLock::new(Arc::new(Edition { listed, version }))),
            shelves: Arc::default(),
            overrides: Arc::default(),
        })
    }

    /// The same list for the models of these providers.
    #[must_use]
    pub fn of_providers(mut self, providers: &BTreeMap<String, ProviderConfig>) -> Self {
        let shelves = providers.iter().map(|(name, config)| (name.clone(), shelf_of(config)));
        self.shelves = Arc::new(shelves.collect());
        self
    }

    /// What administrators say, in place of what they said before.
    pub fn set_overrides(&self, overrides: BTreeMap<ModelRef, FactsOverride>) {
        *self.overrides.write() = overrides;
    }

    /// The version of the list.
    pub fn version(&self) -> String {
        self.edition().version.clone()
    }

    /// Takes the list of another catalogue in place of its own. What administrators say goes on.
    pub fn take_list(&self, other: &Self) {
        *self.edition.write() = other.edition();
    }

    fn edition(&self) -> Arc<Edition> {
        Arc::clone(&self.edition.read())
    }

    /// What is known of a model.
    pub fn info(&self, model: &ModelRef) -> ModelInfo {
        let info = self.listed_info(model);
        match self.overrides.read().get(model) {
            Some(better) => overridden(info, better),
            None => info,
        }
    }

    /// What a model used with what it cost, by the prices of this moment.
    pub fn charge(&self, model: &ModelRef, used: &ReportedUsage) -> Charge {
        let info = self.info(model);
        let cost_nano_usd = info.prices().and_then(|prices| cost(prices, used));
        let price_version = info.price_version.filter(|_| cost_nano_usd.is_some());
        Charge { usage: Usage { cost_nano_usd, ..used.tokens }, price_version }
    }

    fn listed_info(&self, model: &ModelRef) -> ModelInfo {
        let place = self.shelves.get(&model.provider_id);
        let vendor = place.and_then(|shelf| shelf.vendor.clone());
        let edition = self.edition();
        let found = vendor
            .and_then(|vendor| edition.listed.get(&(vendor, model.model_id.clone())).cloned());
        if place.is_some_and(|shelf| shelf.is_free) {
            let prices = Some(vec![PriceTier::default()]);
            let facts = ModelFacts { prices, ..found.unwrap_or_default() };
            let price_version = Some(VERSION_LOCAL.to_owned());
            return ModelInfo { facts, source: FactsSource::Local, price_version };
        }
        let Some(facts) = found else {
            let facts = ModelFacts::default();
            return ModelInfo { facts, source: FactsSource::Unknown, price_version: None };
        };
        let price_version = facts.prices.as_ref().map(|_| edition.version.clone());
        ModelInfo { facts, source: FactsSource::Catalog, price_version }
    }

    /// All models of the configured providers of which something is known, and `others`, by name.
    pub fn list(&self, others: &[ModelRef], default: Option<&ModelRef>) -> Vec<ListedModel> {
        let edition = self.edition();
        let mut names: BTreeSet<(String, String)> = BTreeSet::new();
        for (provider, shelf) in self.shelves.iter() {
            let Some(vendor) = &shelf.vendor else { continue };
            let of_vendor = edition.listed.range((vendor.clone(), String::new())..);
            let of_vendor = of_vendor.take_while(|((found, _), _)| found == vendor);
            names.extend(of_vendor.map(|((_, name), _)| (provider.clone(), name.clone())));
        }
        let overridden: Vec<ModelRef> = self.overrides.read().keys().cloned().collect();
        for model in others.iter().chain(&overridden).chain(default) {
            // Those of providers that are not configured cannot be asked.
            if self.shelves.contains_key(&model.provider_id) {
                names.insert((model.provider_id.clone(), model.model_id.clone()));
            }
        }
        let models = names.into_iter().map(|(provider_id, model_id)| {
            let model = ModelRef { provider_id, model_id };
            let ModelInfo { facts, source, price_version } = self.info(&model);
            ListedModel { is_default: default == Some(&model), model, source, facts, price_version }
        });
        models.collect()
    }
}

fn overridden(info: ModelInfo, better: &FactsOverride) -> ModelInfo {
    let (known, better_facts) = (info.facts, better.facts.clone());
    let price_version = match &better_facts.prices {
        Some(_) => Some(format!("override-{}", better.revision)),
        None => info.price_version,
    };
    let facts = ModelFacts {
        context_tokens: better_facts.context_tokens.or(known.context_tokens),
        output_tokens: better_facts.output_tokens.or(known.output_tokens),
        images: better_facts.images.or(known.images),
        tools: better_facts.tools.or(known.tools),
        reasoning: better_facts.reasoning.or(known.reasoning),
        adaptive_reasoning: better_facts.adaptive_reasoning.or(known.adaptive_reasoning),
        efforts: better_facts.efforts.or(known.efforts),
        structured_output: better_facts.structured_output.or(known.structured_output),
        sampling: better_facts.sampling.or(known.sampling),
        prompt_cache_min_tokens: better_facts
            .prompt_cache_min_tokens
            .or(known.prompt_cache_min_tokens),
        prices: better_facts.prices.or(known.prices),
    };
    ModelInfo { facts, source: FactsSource::Override, price_version }
}

/// Whose models a provider has: those of its kind, unless the operator says otherwise.
fn shelf_of(config: &ProviderConfig) -> Shelf {
    let of_kind = match config.kind {
        ProviderKind::Anthropic => Some("anthropic"),
        ProviderKind::OpenAi => Some("openai"),
        ProviderKind::Google => Some("google"),
        // Anybody's models may be behind these.
        ProviderKind::Ollama | ProviderKind::OpenAiCompatible | ProviderKind::Scripted => None,
    };
    let vendor = match config.catalog.as_deref() {
        None => of_kind.map(str::to_owned),
        Some("none") => None,
        Some(vendor) => Some(vendor.to_owned()),
    };
    // Who runs a server in the own house wants no key; the hosted service does.
    let is_local = config.kind == ProviderKind::Ollama && config.api_key.is_none();
    Shelf { vendor, is_free: config.free.unwrap_or(is_local) }
}

/// The effort of that name.
pub(crate) fn effort(name: &str) -> Option<Effort> {
    Effort::ALL.iter().copied().find(|effort| effort.as_str() == name)
}

/// Tells one file from another in versions; nothing depends on that nobody can make two alike.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("the catalogue of models `{}` cannot be used: {source}", .path.display())]
pub struct CatalogFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: CatalogError,
}
