//! `/openapi.json` and `/docs`: made from the same list as the router, so they cannot say anything else.

use std::fmt::Write;
use std::sync::OnceLock;

use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Required,
    ResponseBuilder, Schema, Type,
};
use utoipa::{IntoParams as _, OpenApi as _, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::auth::WaitParams;
use super::problem::{Code, ProblemBody, ProfileError};
use super::{AppState, Dialect};
use crate::ingest::CallKind;

/// What the words beside `token` mean.
const TOKEN_SCHEME: &str = "An access token. An operation names the scope it needs: read, write, admin, privacy (which admin \
has, too), or server:owner, which only the token of the server's owner has. Without the scope pii:read personal data is masked.";

/// Every code and what to do about it.
const ERRORS: &str = include_str!("../../docs/errors.md");

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(openapi_json)).routes(routes!(docs)).routes(routes!(docs_errors))
}

#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(ProblemBody<'static>, ProfileError<'static>)))]
struct Common;

/// The description of every route of a service, with the test clock's if there is one.
pub fn describe(with_test_clock: bool) -> OpenApi {
    let mut all = Common::openapi();
    all.info = InfoBuilder::new()
        .title("Personas")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Customer profiles and live audiences from Segment-protocol events."))
        .build();
    for group in super::groups(with_test_clock) {
        let mut described = group.routes.into_openapi();
        for (path, item) in &mut described.paths.paths {
            if path.contains("{space}")
                && let Some(read) = &mut item.get
            {
                read.parameters
                    .get_or_insert_default()
                    .extend(WaitParams::into_params(|| None).into_iter().map(RefOr::T));
            }
            let default = if path.contains("{space}") { ["read", "write"] } else { ["read"; 2] };
            for (operation, scope) in operations(item, default) {
                complete(operation, group.dialect, scope);
            }
        }
        all.merge(described);
    }
    bodies_may_be_missing(&mut all);
    let components = all.components.get_or_insert_default();
    let scheme = |scheme, text: &str| {
        SecurityScheme::Http(HttpBuilder::new().scheme(scheme).description(Some(text)).build())
    };
    components.add_security_scheme("token", scheme(HttpAuthScheme::Bearer, TOKEN_SCHEME));
    components.add_security_scheme(
        "token_as_user",
        scheme(HttpAuthScheme::Basic, "An access token as the user name, with an empty password."),
    );
    components.add_security_scheme(
        "write_key",
        scheme(HttpAuthScheme::Basic, "A write key as the user name, with an empty password."),
    );
    all
}

/// Every operation of a path, with the scope it needs unless it says another one: that of reads, or of everything else.
fn operations<'a>(
    item: &'a mut PathItem,
    [reads, writes]: [&'static str; 2],
) -> impl Iterator<Item = (&'a mut Operation, &'static str)> {
    let of = [
        (&mut item.get, reads),
        (&mut item.put, writes),
        (&mut item.post, writes),
        (&mut item.patch, writes),
        (&mut item.delete, writes),
    ];
    of.into_iter().filter_map(|(operation, scope)| Some((operation.as_mut()?, scope)))
}

/// An empty body is an empty object: whoever need not say anything need not send it either. Where one of several fields has to be
/// there, the description of the body says so (`min_properties`).
fn bodies_may_be_missing(all: &mut OpenApi) {
    let schemas = all.components.as_ref().map(|components| &components.schemas);
    let needs_nothing = |schema: &RefOr<Schema>| {
        let schema = match schema {
            RefOr::T(schema) => Some(schema),
            RefOr::Ref(to) => {
                let name = to.ref_location.rsplit('/').next().unwrap_or_default();
                match schemas.and_then(|schemas| schemas.get(name)) {
                    Some(RefOr::T(schema)) => Some(schema),
                    _ => None,
                }
            }
        };
        matches!(schema, Some(Schema::Object(object)) if object.required.is_empty() && object.min_properties.is_none())
    };
    for (path, item) in &mut all.paths.paths {
        if !path.contains("{space}") {
            continue;
        }
        for (operation, _) in operations(item, [""; 2]) {
            let Some(RefOr::T(body)) = operation.request_body.as_mut() else { continue };
            let Some(RefOr::T(content)) = body.content.get("application/json") else { continue };
            if content.schema.as_ref().is_some_and(needs_nothing) {
                body.required = Some(Required::False);
            }
        }
    }
}

/// What all operations of a group have in common: how to prove who one is, with which scope, and how errors look.
fn complete(operation: &mut Operation, dialect: Dialect, scope: &str) {
    let need = |name: &str, scopes: &[&str]| SecurityRequirement::new(name, scopes.iter().copied());
    let (problem, media) = match dialect {
        Dialect::Problem => ("Problem", "application/problem+json"),
        Dialect::Tracking => ("TrackingAnswer", "application/json"),
        Dialect::Profile => ("ProfileError", "application/json"),
    };
    let security = operation.security.get_or_insert_with(|| match dialect {
        Dialect::Tracking => vec![need("write_key", &[])],
        Dialect::Profile | Dialect::Problem => vec![need("token", &[scope])],
    });
    // A token can be sent in either way, and does the same.
    let twins: Vec<SecurityRequirement> = security.iter().filter_map(as_user).collect();
    security.extend(twins);
    // OpenAPI asks for one; generators refuse a description without.
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            done(status).clone_into(&mut response.description);
        }
    }
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(problem))).build();
    let response = ResponseBuilder::new()
        .description("What is wrong, and whether to try again: docs/errors.md")
        .content(media, content)
        .build();
    operation.responses.responses.entry("default".to_owned()).or_insert(RefOr::T(response));
}

fn done(status: &str) -> &'static str {
    match status {
        "200" => "What was asked for, or what was changed",
        "201" => "It was made",
        "202" => "It will be done",
        "204" => "It is done, and there is nothing to say",
        _ => "See the status",
    }
}

/// The same need, with the token as a user's name.
fn as_user(need: &SecurityRequirement) -> Option<SecurityRequirement> {
    let json = serde_json::to_value(need).ok()?;
    let scopes: Vec<String> = serde_json::from_value(json.get("token")?.clone()).ok()?;
    Some(SecurityRequirement::new("token_as_user", scopes))
}

/// What tracking calls are answered.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes answers that are written elsewhere")]
struct TrackingAnswer {
    success: bool,
    /// Why it was refused, as a stable word.
    code: Option<String>,
    /// What is wrong, and what would be right.
    message: Option<String>,
    /// The field at fault.
    field: Option<String>,
    /// Events taken, when some of a batch were refused.
    accepted: Option<u64>,
    /// Events of the batch that were refused.
    rejected: Option<Vec<RejectedItem>>,
}

/// An event of a batch that was refused.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes answers that are written elsewhere")]
struct RejectedItem {
    index: u64,
    message_id: Option<String>,
    code: String,
    message: String,
    field: Option<String>,
}

#[derive(utoipa::OpenApi)]
#[openapi(components(schemas(TrackingAnswer, RejectedItem)))]
struct Tracking;

/// The description of the tracking calls, from the table their routes are made from.
pub(super) fn tracking_calls(calls: &[(CallKind, &[&str], &str)], metrics_path: &str) -> OpenApi {
    let mut api = OpenApiBuilder::from(Tracking::openapi()).build();
    for (_, paths, summary) in calls {
        for path in *paths {
            let operation = tracking_call(path, summary);
            api.paths.add_path_operation(*path, vec![HttpMethod::Post], operation);
        }
    }
    let mut drop = tracking_call(metrics_path, "Accept and forget the browser SDK's numbers about itself");
    // Nobody reads the body: there is none that could be wrong.
    drop.request_body = None;
    drop.security = Some(vec![SecurityRequirement::default()]);
    api.paths.add_path_operation(metrics_path, vec![HttpMethod::Post], drop);
    api
}

fn tracking_call(path: &str, summary: &str) -> Operation {
    let object = || ObjectBuilder::new().schema_type(Type::Object).build();
    let body = RequestBodyBuilder::new()
        .description(Some("JSON, in whatever content type it comes, plain or gzip"))
        .content("application/json", ContentBuilder::new().schema(Some(object())).build())
        .required(Some(Required::True))
        .build();
    let answer = ContentBuilder::new().schema(Some(Ref::from_schema_name("TrackingAnswer"))).build();
    let taken = ResponseBuilder::new()
        .description(
            "Durable; the header Personas-Offset covers it. Of a batch, some events may have been refused",
        )
        .content("application/json", answer)
        .build();
    let write_key = ParameterBuilder::new()
        .name("writeKey")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some("The write key, for clients that can send no header"))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
        .build();
    OperationBuilder::new()
        .operation_id(Some(path.trim_start_matches('/').replace(['/', '-'], "_")))
        .summary(Some(summary))
        .tag("Tracking")
        .parameter(write_key)
        .request_body(Some(body))
        .response("200", taken)
        .build()
}

/// The description of this service, as JSON, as `docs/openapi.json` and `personas openapi` have it.
pub fn describe_json(with_test_clock: bool) -> String {
    let mut json = describe(with_test_clock).to_pretty_json().unwrap_or_default();
    json.push('\n');
    json
}

/// The description of all routes
#[utoipa::path(get, path = "/openapi.json", tag = "Operations", security(()),
    responses((status = 200, body = Object, content_type = "application/json")))]
async fn openapi_json(State(app): State<AppState>) -> Response {
    static DESCRIPTIONS: [OnceLock<String>; 2] = [OnceLock::new(), OnceLock::new()];
    let with_test_clock = app.clock.is_test();
    let [without, with] = &DESCRIPTIONS;
    let place = if with_test_clock { with } else { without };
    let json = place.get_or_init(|| describe_json(with_test_clock)).as_str();
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// All routes, for people
#[utoipa::path(get, path = "/docs", tag = "Operations", security(()),
    responses((status = 200, body = String, content_type = "text/html")))]
async fn docs(State(app): State<AppState>) -> Response {
    shown(page(describe(app.clock.is_test())))
}

/// All error codes, for people
#[utoipa::path(get, path = "/docs/errors", tag = "Operations", security(()),
    responses((status = 200, body = String, content_type = "text/html")))]
async fn docs_errors() -> Response {
    // The text as it is, but for its anchors, which are where the `type` of a problem points to.
    let text = ERRORS.replace('&', "&amp;").replace('<', "&lt;");
    let text = text.replace("&lt;a id=", "<a id=").replace("&lt;/a>", "</a>");
    shown(format!("{PAGE_HEAD}<h1>Errors</h1><pre style=\"white-space:pre-wrap\">{text}</pre>\n"))
}

/// A page of ours: its own styles, and nothing else.
fn shown(html: String) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response()
}

/// A page without scripts: every operation below its tag.
fn page(mut api: OpenApi) -> String {
    let mut rows: Vec<(String, String, &'static str, String)> = Vec::new();
    for (path, item) in &mut api.paths.paths {
        let methods = [
            ("GET", &item.get),
            ("POST", &item.post),
            ("PUT", &item.put),
            ("PATCH", &item.patch),
            ("DELETE", &item.delete),
        ];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            let tag = operation.tags.as_ref().and_then(|tags| tags.first()).cloned().unwrap_or_default();
            rows.push((tag, path.clone(), method, operation.summary.clone().unwrap_or_default()));
        }
    }
    rows.sort();
    let mut html = format!("{PAGE_HEAD}{ROUTES_HEAD}");
    let mut tag = String::new();
    for (of, path, method, summary) in rows {
        if of != tag {
            let _infallible = write!(html, "</table><h2>{of}</h2><table>");
            tag = of;
        }
        let _infallible = write!(html, "<tr><td>{method}<td><code>{path}</code><td>{summary}");
    }
    html.push_str("</table><h2>Error codes</h2><table>");
    for code in Code::ALL {
        let (word, status, title) = (code.as_str(), code.status().as_u16(), code.title());
        let _infallible = write!(html, "<tr id=\"{word}\"><td>{status}<td><code>{word}</code><td>{title}");
    }
    html.push_str("</table>\n");
    html
}

const PAGE_HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Personas</title>\
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
td{padding:.1rem 1rem .1rem 0;vertical-align:top}</style>";

const ROUTES_HEAD: &str = "<h1>Personas</h1><p>All routes. The same for machines: \
<a href=/openapi.json>openapi.json</a>. Error codes in detail: <a href=/docs/errors>errors</a>.<table>";
