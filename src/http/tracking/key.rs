//! Where SDKs put the write key, and whose it is.

use axum::http::{HeaderMap, HeaderName, Uri, header};

use crate::domain::month::Month;
use crate::domain::origin::AllowedOrigin;
use crate::http::AppState;
use crate::http::auth::credential;
use crate::http::problem::{Code, Problem};
use crate::ingest::{Sender, write_key_in_body};
use crate::manage::registry::KeyOf;

const X_WRITE_KEY: HeaderName = HeaderName::from_static("x-write-key");

/// The key in the head of a request: `Authorization`, then `X-Write-Key` (Jitsu's `key:secret` too), then `writeKey`
/// in the query, which is all a beacon has.
pub(super) fn in_head(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    credential(headers).or_else(|| in_own_header(headers)).or_else(|| in_query(uri))
}

fn in_own_header(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(X_WRITE_KEY)?.to_str().ok()?;
    let key = value.trim().split(':').next().unwrap_or_default();
    Some(key.to_owned()).filter(|key| !key.is_empty())
}

fn in_query(uri: &Uri) -> Option<String> {
    let pairs = url::form_urlencoded::parse(uri.query()?.as_bytes());
    let keys = pairs.filter(|(name, key)| name == "writeKey" && !key.is_empty());
    keys.map(|(_, key)| key.into_owned()).next()
}

/// Who sends with this key, if the source is switched on and its space takes events now (decisions T4), from a page that may.
pub(super) async fn sender(app: &AppState, key: &str, headers: &HeaderMap) -> Result<Sender, Problem> {
    let found = source(app, key).await?;
    let KeyOf {
        space,
        source,
        events_per_second_max,
        allowed_origins,
        is_public,
        limits,
        may_warn,
        lock,
        ..
    } = found;
    if let Some(allowed) = allowed_origins {
        check_origin(headers, &allowed)?;
    }
    if let Some(lock) = lock {
        return Err(Problem::new(Code::LockedWorkspace, format!("{lock}; it takes no events")));
    }
    Ok(Sender { space, source, is_public, events_per_second_max, limits, may_warn })
}

/// What is coming for the space of a sender. Nothing is asked where its plan has neither limits nor an end.
pub(super) fn warnings(app: &AppState, sender: Sender) -> Vec<String> {
    if !sender.may_warn {
        return Vec::new();
    }
    let registry = app.manage.registry();
    let snapshot = registry.snapshot();
    let Some(space) = snapshot.space(sender.space) else { return Vec::new() };
    let now = app.clock.now();
    space.plan.warnings(registry.meters().usage(space.no, Month::of(now)), now)
}

/// Whether a preflight that has a key in its query comes from a page that may send. Whose key nobody knows is not asked: the
/// call itself is answered what is wrong.
pub(super) async fn check_preflight(app: &AppState, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(key) = in_query(uri) else { return Ok(()) };
    match app.manage.registry().find_key(&key).await? {
        Some(KeyOf { allowed_origins: Some(allowed), .. }) => check_origin(headers, &allowed),
        _ => Ok(()),
    }
}

/// Browsers say which page makes a call; what is no page says nothing, and is not asked.
fn check_origin(headers: &HeaderMap, allowed: &[AllowedOrigin]) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    if allowed.iter().any(|one| one.allows(origin)) {
        return Ok(());
    }
    let shown: String = origin.chars().take(100).collect();
    let message = format!(
        "the source of this write key takes no events from {shown}; its allowed_origins say from where"
    );
    Err(Problem::new(Code::OriginNotAllowed, message).at("Origin"))
}

/// Whose this key is, if the source is switched on.
pub(super) async fn source(app: &AppState, key: &str) -> Result<KeyOf, Problem> {
    let found = app.manage.registry().find_key(key).await?;
    match found {
        Some(found) if found.enabled => Ok(found),
        Some(_) => Err(Problem::new(Code::SourceDisabled, "the source of this write key is switched off")),
        None => Err(Problem::new(Code::UnknownSource, "this write key is not known, or was revoked")),
    }
}

/// Who sends with the key in the body.
pub(super) async fn sender_of_body(
    app: &AppState,
    body: &[u8],
    headers: &HeaderMap,
) -> Result<Sender, Problem> {
    let missing = || {
        let message = "no write key: send it as the user name of Basic, as Bearer, in X-Write-Key, or as `writeKey` in \
                       the query or the body";
        Problem::new(Code::UnknownSource, message)
    };
    sender(app, &write_key_in_body(body).ok_or_else(missing)?, headers).await
}
