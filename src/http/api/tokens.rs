//! `/v1/spaces/{space}/tokens`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::path_id;
use crate::domain::Role;
use crate::domain::ids::public_id;
use crate::http::AppState;
use crate::http::auth::{Admin, Authed};
use crate::http::etag::IfNoneMatch;
use crate::http::extract::{Json, Path};
use crate::http::page::{List, Page, PageParams};
use crate::http::problem::Problem;
use crate::manage::tokens::{self, TokenView};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_tokens, create_token)).routes(routes!(revoke_token))
}

/// An access token.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
struct TokenJson {
    id: String,
    name: String,
    /// First characters, to recognise it by.
    prefix: String,
    /// The role that has just these scopes, if there is one: `owner`, `admin`, `editor`, `viewer`, `privacy`.
    role: Option<&'static str>,
    /// What it may do: `read`, `write`, `admin`, `privacy`, `pii:read`.
    scopes: Vec<&'static str>,
    created_at: String,
    /// The instant it stops working; none: never.
    expires_at: Option<String>,
    last_used_at: Option<String>,
    /// The token, in the answer to its making only.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl From<TokenView> for TokenJson {
    fn from(TokenView { token, last_used_at }: TokenView) -> Self {
        Self {
            id: public_id("tok", token.id),
            name: token.name,
            prefix: token.prefix,
            role: Role::of(&token.scopes).map(Role::as_str),
            scopes: token.scopes.iter().map(|s| s.as_str()).collect(),
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.map(|at| at.to_string()),
            last_used_at: last_used_at.map(|at| at.to_string()),
            token: None,
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// For people.
    name: String,
    /// A named set of scopes: `owner` (all), `admin` (`read`, `write`, `admin`), `editor` (`read`, `write`), `viewer` (`read`),
    /// `privacy` (`read`, `privacy`, `pii:read`).
    role: Option<String>,
    /// Instead of a role, any of `read`, `write`, `admin`, `privacy`, `pii:read`. Without `pii:read` personal data is masked.
    scopes: Option<Vec<String>>,
    /// The instant it stops working, RFC 3339; never when not given.
    expires_at: Option<String>,
}

#[derive(Deserialize)]
struct TokenPath {
    id: String,
}

/// List the access tokens of a space
#[utoipa::path(get, path = "/v1/spaces/{space}/tokens", security(("token" = ["admin"])), tag = "Spaces",
    params(("space" = String, Path, description = "Id of the space"), PageParams),
    responses((status = 200, body = List<TokenJson>)))]
async fn list_tokens(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    page: Page,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let after: Option<(i64, uuid::Uuid)> = page.after("tokens")?;
    let key = |t: &TokenView| (t.token.created_at.millis(), t.token.id);
    let mut tokens = app.manage.list_tokens(caller.space_no()).await?;
    tokens.retain(|t| after.is_none_or(|after| key(t) > after));
    Ok(known.answer(&page.list("tokens", tokens, key, TokenJson::from)))
}

/// Make an access token
///
/// It can be given no scope that the token it is made with lacks.
#[utoipa::path(post, path = "/v1/spaces/{space}/tokens", security(("token" = ["admin"])), tag = "Spaces", request_body = NewToken,
    params(("space" = String, Path, description = "Id of the space")),
    responses((status = 201, body = TokenJson)))]
async fn create_token(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, Json<TokenJson>), Problem> {
    let NewToken { name, role, scopes, expires_at } = new;
    let new = tokens::NewToken { name, role, scopes, expires_at };
    let (token, secret) = app.manage.create_token(caller.space_no(), &caller.token, new).await?;
    let made = TokenJson::from(TokenView { token, last_used_at: None });
    caller.note(|| json!({"token": made}));
    Ok((StatusCode::CREATED, Json(TokenJson { token: Some(secret), ..made })))
}

/// Revoke an access token
#[utoipa::path(delete, path = "/v1/spaces/{space}/tokens/{id}", security(("token" = ["admin"])), tag = "Spaces",
    params(("space" = String, Path, description = "Id of the space"), ("id" = String, Path, description = "Id of the token")),
    responses((status = 204, description = "It does not work any more")))]
async fn revoke_token(
    State(app): State<AppState>,
    caller: Authed<Admin>,
    Path(path): Path<TokenPath>,
) -> Result<StatusCode, Problem> {
    let id = path_id("tok", "token", &path.id)?;
    app.manage.revoke_token(caller.space_no(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
