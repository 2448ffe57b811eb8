//! The obvious service, for comparison: a request is parsed, its event inserted as a row, and then it is answered.

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::target::Target;

/// As many as most pools have.
const CONNECTIONS: u32 = 16;

/// A body, split into what a service has to look at.
#[derive(Debug, Deserialize)]
pub(super) struct Body<'a> {
    #[serde(borrow)]
    pub(super) batch: Vec<Event<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    message_id: Uuid,
    user_id: &'a str,
    #[serde(rename = "event")]
    name: &'a str,
    timestamp: chrono::DateTime<chrono::Utc>,
    #[serde(borrow)]
    properties: &'a RawValue,
}

impl<'a> Body<'a> {
    /// Splits a body, and checks that its events are some.
    pub(super) fn parse(text: &'a str) -> anyhow::Result<Self> {
        let body: Self = serde_json::from_str(text)?;
        let is_one = |event: &Event<'_>| event.kind == "track" && !event.user_id.is_empty();
        anyhow::ensure!(body.batch.iter().all(is_one), "an event of nobody");
        Ok(body)
    }
}

/// The service, as long as this is kept.
pub(super) struct Naive {
    target: Target,
    _serving: JoinSet<std::io::Result<()>>,
}

impl Naive {
    pub(super) async fn start(options: PgConnectOptions) -> anyhow::Result<Self> {
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/v1/batch", post(take)).with_state(pool);
        let serving = JoinSet::from_iter([async move { axum::serve(listener, router).await }]);
        // Its events have nothing to do with those of the others.
        let target = Target {
            address,
            host: "naive".to_owned(),
            write_key: String::new(),
            token: String::new(),
            stream: u64::from(u32::MAX),
        };
        Ok(Self { target, _serving: serving })
    }

    pub(super) fn target(&self) -> Target {
        self.target.clone()
    }
}

async fn take(State(pool): State<PgPool>, body: String) -> StatusCode {
    match insert(&pool, &body).await {
        Ok(()) => StatusCode::OK,
        Err(error) => {
            super::say(&format!("the naive service: {error:#}"));
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

async fn insert(pool: &PgPool, body: &str) -> anyhow::Result<()> {
    let body = Body::parse(body)?;
    let event = body.batch.first().context("no event")?;
    sqlx::query("INSERT INTO bench_events VALUES ($1, $2, $3, $4, $5::text::jsonb)")
        .bind(event.message_id)
        .bind(event.user_id)
        .bind(event.name)
        .bind(event.timestamp)
        .bind(event.properties.get())
        .execute(pool)
        .await?;
    Ok(())
}
