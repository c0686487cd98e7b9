//! What storage costs: messages on their way to the disk, and the queries that lists and rooms make.

mod bare;
mod clients;
mod messages;
mod open;
mod pages;
mod search;
mod statements;

use crate::table::Figure;

/// Measures writes beside the bare limit of this disk, then reads, then memory.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let mut figures = messages::figures().await?;
    figures.extend(pages::figures().await?);
    figures.push(search::figure().await?);
    figures.push(open::figure().await?);
    Ok(figures)
}
