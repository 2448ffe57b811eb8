//! `personas demo`: a small shop in a space of its own, with audiences that fill while one watches.

mod shop;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use url::Url;

use super::client::{Answer, Client};
use crate::clock::Clock;
use shop::Shop;

/// Spaces tried: demo, demo-2, demo-3 and so on.
const SPACES_MAX: u32 = 99;
/// The history is sent in so many portions, so that one sees it come in.
const PORTIONS: usize = 16;
const TICK: Duration = Duration::from_millis(250);
/// How often a busy server is asked again.
const TRIES: u32 = 20;

const AUDIENCES: [(&str, &str, &str); 3] = [
    (
        "recent_buyers",
        "Bought within the last 7 days",
        "event('Order Completed').within(7 days).count() >= 1",
    ),
    (
        "big_spenders",
        "Spent 300 or more within the last 30 days",
        "event('Order Completed').within(30 days).sum(property('total')) >= 300",
    ),
    (
        "left_their_cart",
        "Put something into the cart within 2 days and bought nothing since",
        "event('Product Added').within(2 days).count() >= 1 AND event('Order Completed').within(2 days).count() = 0",
    ),
];
const TRAITS: [(&str, &str, &str); 3] = [
    ("orders", "Number of orders", "event('Order Completed').count()"),
    ("spent_30d", "Spent within 30 days", "event('Order Completed').within(30 days).sum(property('total'))"),
    ("favourite_category", "Looked at most", "event('Product Viewed').mode(property('category'))"),
];

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Where the server is
    #[arg(long, env = "PERSONAS_URL", default_value = "http://127.0.0.1:8080")]
    url: Url,
    /// The owner's token [env: `PERSONAS_TOKEN`, else `PERSONAS_BOOTSTRAP_TOKEN`]
    #[arg(long)]
    token: Option<String>,
    /// How long people go on shopping, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

pub(super) fn run(demo: &Demo) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(Box::pin(play(demo)))
}

async fn play(demo: &Demo) -> anyhow::Result<ExitCode> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let token = demo
        .token
        .clone()
        .or_else(|| variable("PERSONAS_TOKEN"))
        .or_else(|| variable("PERSONAS_BOOTSTRAP_TOKEN"))
        .context("no token: give --token the one `personas serve` printed on its first start")?;
    let owner = Client::new(&demo.url, &token)?;
    owner.reach().await?;
    let (space, write_key) = set_up(&owner).await?;
    let mut out = io::stdout();
    writeln!(out, "Space `{space}` is made: a shop with {} people, three audiences.", shop::PEOPLE)?;
    let sender = Client::new(&demo.url, &write_key)?;
    let mut shop = Shop::new();
    let board = Board::new();
    let ticks = demo.seconds.saturating_mul(1_000) / TICK.as_millis() as u64;
    board.say("Thirty days of history come in:");
    let history = shop.history(Clock::System.now());
    let mut sent = 0;
    for portion in history.chunks(history.len().div_ceil(PORTIONS).max(1)) {
        let started = Instant::now();
        post(&sender, "/v1/batch", json!({ "batch": portion })).await?;
        sent += portion.len();
        board.show(&owner, &space, sent_text(sent)).await?;
        tokio::time::sleep(TICK.saturating_sub(started.elapsed())).await;
    }
    board.say("People are in the shop now:");
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for tick in 1..=ticks {
        interval.tick().await;
        let events = shop.now(Clock::System.now());
        sent += events.len();
        post(&sender, "/v1/batch", json!({ "batch": events })).await?;
        if tick % 4 == 0 {
            board.show(&owner, &space, sent_text(sent)).await?;
        }
    }
    board.finish();
    tell(&mut out, &owner, demo, &space, &write_key).await?;
    Ok(ExitCode::SUCCESS)
}

fn sent_text(events: usize) -> String {
    format!("{events} events")
}

/// A space nobody used before, its source, and all definitions. Id of the space, write key.
async fn set_up(owner: &Client) -> anyhow::Result<(String, String)> {
    let mut space = String::new();
    for number in 1..=SPACES_MAX {
        space = if number == 1 { "demo".to_owned() } else { format!("demo-{number}") };
        let body = json!({"id": space, "name": "Demo shop"});
        let answer = ask(owner, Method::POST, "/v1/spaces", Some(body)).await?;
        match answer.status {
            StatusCode::CREATED => break,
            StatusCode::CONFLICT if number < SPACES_MAX => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                bail!("only the owner's token makes spaces: {}", answer.complaint())
            }
            _ => bail!("no space could be made: {}", answer.complaint()),
        }
    }
    let base = format!("/v1/spaces/{space}");
    let source = post(owner, &format!("{base}/sources"), json!({"name": "Shop"})).await?;
    let key = source["write_key"].as_str().context("the answer has no write key")?.to_owned();
    for (kind, definitions) in [("audiences", AUDIENCES), ("computed-traits", TRAITS)] {
        for (key, name, query) in definitions {
            let body = json!({"key": key, "name": name, "definition": {"type": "users", "query": query}});
            post(owner, &format!("{base}/{kind}"), body).await?;
        }
    }
    Ok((space, key))
}

/// Asks until the server is not too busy to answer.
async fn ask(client: &Client, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
    for _ in 1..TRIES {
        let answer = client.send(method.clone(), path, body.as_ref().map(Value::to_string)).await?;
        if !answer.is_temporary() {
            return Ok(answer);
        }
        tokio::time::sleep(answer.retry_after().unwrap_or(TICK)).await;
    }
    Ok(client.send(method, path, body.as_ref().map(Value::to_string)).await?)
}

async fn post(client: &Client, path: &str, body: Value) -> anyhow::Result<Value> {
    let answer = ask(client, Method::POST, path, Some(body)).await?;
    anyhow::ensure!(answer.status.is_success(), "{path}: {}", answer.complaint());
    Ok(answer.json)
}

/// The sizes of the audiences, as bars in a terminal, as lines elsewhere.
struct Board {
    all: Option<MultiProgress>,
    title: ProgressBar,
    bars: Vec<ProgressBar>,
}

impl Board {
    fn new() -> Self {
        let is_terminal = io::stderr().is_terminal();
        let all = MultiProgress::with_draw_target(if is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let title = all.add(ProgressBar::new_spinner().with_style(style("{prefix} {msg}")));
        let bar = |(key, ..): &(&'static str, &str, &str)| {
            let bar =
                ProgressBar::new(shop::PEOPLE as u64).with_style(style("  {prefix:16} {bar:40} {pos:>4}"));
            all.add(bar.with_prefix(*key))
        };
        let bars = AUDIENCES.iter().map(bar).collect();
        Self { all: is_terminal.then_some(all), title, bars }
    }

    fn say(&self, text: &str) {
        self.title.set_prefix(text.to_owned());
        if self.all.is_none() {
            // Nobody is left to tell when standard error is gone too.
            let _gone = writeln!(io::stderr(), "{text}");
        }
    }

    async fn show(&self, owner: &Client, space: &str, sent: String) -> anyhow::Result<()> {
        let path = format!("/v1/spaces/{space}/audiences/sizes");
        let answer = ask(owner, Method::GET, &path, None).await?;
        let size_of = |key: &str| {
            let sizes = answer.json["data"].as_array().map(Vec::as_slice).unwrap_or_default();
            sizes.iter().find(|size| size["key"] == key).and_then(|size| size["size"].as_u64()).unwrap_or(0)
        };
        self.title.set_message(sent.clone());
        let mut line = format!("  {sent:>12}");
        for (bar, (key, ..)) in self.bars.iter().zip(AUDIENCES) {
            let size = size_of(key);
            bar.set_position(size);
            line = format!("{line}   {key} {size:>3}");
        }
        if self.all.is_none() {
            let _gone = writeln!(io::stderr(), "{line}");
        }
        Ok(())
    }

    fn finish(&self) {
        for bar in self.bars.iter().chain([&self.title]) {
            bar.abandon();
        }
    }
}

/// What there is to look at, as lines to copy.
async fn tell(
    out: &mut impl Write,
    owner: &Client,
    demo: &Demo,
    space: &str,
    write_key: &str,
) -> anyhow::Result<()> {
    let path = format!("/v1/spaces/{space}/audiences/big_spenders/members?limit=1");
    let members = ask(owner, Method::GET, &path, None).await?;
    let somebody = members.json["data"][0]["profile_id"]
        .as_str()
        .map_or_else(|| format!("user_id:{}", shop::user_id(0)), |id| format!("profile_id:{id}"));
    let url = demo.url.as_str().trim_end_matches('/');
    let base = format!("{url}/v1/spaces/{space}");
    let profile = format!("{base}/collections/users/profiles/{somebody}");
    writeln!(out, "\nLook around; TOKEN is the owner's token:")?;
    let lines = [
        ("the audiences and their sizes", format!("{base}/audiences/sizes")),
        ("who spends most", format!("{base}/audiences/big_spenders/members")),
        (
            "one of them: traits, computed traits, audiences",
            format!("{profile}/traits?limit=50&verbose=true"),
        ),
        (
            "why: what is computed, with its time",
            format!("{profile}/traits?class=computed_trait&verbose=true"),
        ),
        ("how browser and account became one person", format!("{profile}/identity")),
        ("what they did, newest first", format!("{profile}/events")),
        ("who came and went", format!("{base}/audiences/left_their_cart/transitions")),
    ];
    for (what, url) in lines {
        writeln!(out, "  # {what}\n  curl -s -u $TOKEN: '{url}'")?;
    }
    writeln!(out, "Buy something yourself:")?;
    let order = json!({"userId": "me", "event": "Order Completed", "properties": {"total": 400}});
    writeln!(out, "  curl -s -u {write_key}: {url}/v1/track -d '{order}'")?;
    let me = format!("{base}/collections/users/profiles/user_id:me/traits");
    writeln!(out, "  curl -s -u $TOKEN: '{me}'")?;
    writeln!(out, "In a browser, with the token: {url}/console/s/{space}")?;
    writeln!(out, "All routes: {url}/docs")?;
    Ok(out.flush()?)
}
