//! Events as they come in. The page is the frame; its script listens (`assets/tail.js`).

use super::Cx;
use super::profile::names;
use crate::console::assets;
use crate::console::client::Refusal;
use crate::console::view::{Content, Page, Section, Tail};

/// The page.
pub(super) async fn page(context: Cx) -> Result<Page, Refusal> {
    context.read(&["pipeline"], &[]).await?;
    let sources = context.read(&["sources"], &[("limit", "1000")]).await;
    let mut sources: Vec<(String, String)> = names(&sources).into_iter().collect();
    sources.sort_by(|a, b| a.1.cmp(&b.1));
    let tail = Tail {
        address: context.through(&["events", "tail"], &[]),
        refused: context.through(&["rejected-events"], &[("limit", "50")]),
        pipeline: context.through(&["pipeline"], &[]),
        sources,
    };
    Ok(Page::new("Live events")
        .script(assets::tail())
        .with(Section::new("tail", "").with(Content::Tail(tail)).stays()))
}
