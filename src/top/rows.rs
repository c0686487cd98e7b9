//! From the actors of a page to the rows of the screen: a tree, or a list in some order.

use std::collections::{HashMap, HashSet};

use iris_protocol::ActorInfo;

use super::state::State;

/// The name at the top of every path.
const TOP: &str = "node/";

/// By what the rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Children under their parents.
    Tree,
    /// Messages that wait.
    Depth,
    /// Messages handled in a second.
    Rate,
    /// Panics.
    Failed,
    /// Restarts.
    Restarts,
    /// Messages refused.
    Refused,
    /// Age of the current message.
    Age,
}

impl Order {
    const ALL: &[Self] = &[
        Self::Tree,
        Self::Depth,
        Self::Rate,
        Self::Failed,
        Self::Restarts,
        Self::Refused,
        Self::Age,
    ];

    /// The one after it, from the last one back to the first.
    pub(super) fn next(self) -> Self {
        let after = Self::ALL.iter().skip_while(|order| **order != self).nth(1);
        *after.unwrap_or(&Self::Tree)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Depth => "depth",
            Self::Rate => "rate",
            Self::Failed => "failed",
            Self::Restarts => "restarts",
            Self::Refused => "refused",
            Self::Age => "age",
        }
    }

    fn figure(self, actor: &ActorInfo, rate: Option<u64>) -> u64 {
        match self {
            Self::Tree => 0,
            Self::Depth => actor.mailbox_depth,
            Self::Rate => rate.unwrap_or(0),
            Self::Failed => actor.failed,
            Self::Restarts => actor.restarts,
            Self::Refused => actor.refused,
            Self::Age => actor.current.iter().map(|work| work.age_ms).max().unwrap_or(0),
        }
    }
}

/// One actor on the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its place in the page.
    pub(super) actor: usize,
    /// How many of its ancestors are seen above it.
    pub(super) indent: usize,
    /// Its path after that of the ancestor above it.
    pub(super) label: String,
    /// What is under it.
    pub(super) fold: Fold,
}

/// What is under a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    /// Nothing.
    Leaf,
    /// Its children follow.
    Open,
    /// Its children are hidden.
    Folded,
}

/// The rows of a state.
pub(super) fn arrange(state: &State) -> Vec<Row> {
    let wanted = wanted(state);
    match state.order {
        Order::Tree => tree(state, &wanted),
        Order::Depth
        | Order::Rate
        | Order::Failed
        | Order::Restarts
        | Order::Refused
        | Order::Age => list(state, &wanted),
    }
}

/// Whether each actor of the page holds the text that is asked for.
fn wanted(state: &State) -> Vec<bool> {
    let text = state.filter.to_lowercase();
    let holds = |hay: &str| hay.to_lowercase().contains(&text);
    let is_wanted = |actor: &ActorInfo| {
        text.is_empty()
            || holds(&actor.path)
            || holds(&actor.kind)
            || actor.current.iter().any(|work| holds(&work.name))
    };
    state.page.actors.iter().map(is_wanted).collect()
}

fn list(state: &State, wanted: &[bool]) -> Vec<Row> {
    let of = |place: usize| state.rates.get(place).copied().flatten();
    let actors = state.page.actors.iter().enumerate();
    let mut places: Vec<(u64, usize)> = actors
        .filter(|(place, _)| wanted.get(*place) == Some(&true))
        .map(|(place, actor)| (state.order.figure(actor, of(place)), place))
        .collect();
    // Equals stay in the order of their paths.
    places.sort_by(|a, b| if state.is_reversed { a.0.cmp(&b.0) } else { b.0.cmp(&a.0) });
    let row = |(_, place): (u64, usize)| {
        let actor = state.page.actors.get(place)?;
        let label = short(&actor.path).to_owned();
        Some(Row { actor: place, indent: 0, label, fold: Fold::Leaf })
    };
    places.into_iter().filter_map(row).collect()
}

fn tree(state: &State, wanted: &[bool]) -> Vec<Row> {
    let actors = &state.page.actors;
    let place_of: HashMap<&str, usize> =
        actors.iter().enumerate().map(|(place, actor)| (actor.path.as_str(), place)).collect();
    let parent_of =
        |place: usize| place_of.get(actors.get(place)?.parent.as_str()).filter(|p| **p != place);
    let seen = with_ancestors(wanted, parent_of);
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut waiting: Vec<(usize, usize)> = Vec::new();
    // From the last to the first: what is put on the stack last comes first.
    for place in (0..actors.len()).rev().filter(|place| seen.contains(place)) {
        match parent_of(place) {
            Some(parent) => children.entry(*parent).or_default().push(place),
            None => waiting.push((place, 0)),
        }
    }
    let mut rows = Vec::with_capacity(seen.len());
    while let Some((place, indent)) = waiting.pop() {
        let Some(actor) = actors.get(place) else { continue };
        let under = children.remove(&place).unwrap_or_default();
        // What is looked for is shown, folded or not.
        let is_folded = state.filter.is_empty() && state.folded.contains(&actor.path);
        let fold = match (under.is_empty(), is_folded) {
            (true, _) => Fold::Leaf,
            (false, true) => Fold::Folded,
            (false, false) => Fold::Open,
        };
        rows.push(Row { actor: place, indent, label: label(actor, indent > 0), fold });
        if fold == Fold::Open {
            waiting.extend(under.into_iter().map(|child| (child, indent + 1)));
        }
    }
    rows
}

/// The places that are wanted, with those of all actors above them.
fn with_ancestors<'a>(
    wanted: &[bool],
    parent_of: impl Fn(usize) -> Option<&'a usize>,
) -> HashSet<usize> {
    let mut seen = HashSet::new();
    for (place, _) in wanted.iter().enumerate().filter(|(_, is_wanted)| **is_wanted) {
        let mut next = Some(place);
        while let Some(place) = next.filter(|place| seen.insert(*place)) {
            next = parent_of(place).copied();
        }
    }
    seen
}

fn label(actor: &ActorInfo, is_under_its_parent: bool) -> String {
    let after_parent = actor.path.strip_prefix(&actor.parent).and_then(|l| l.strip_prefix('/'));
    match after_parent {
        Some(label) if is_under_its_parent => label.to_owned(),
        Some(_) | None => short(&actor.path).to_owned(),
    }
}

/// A path without what all paths begin with.
pub(super) fn short(path: &str) -> &str {
    path.strip_prefix(TOP).unwrap_or(path)
}
