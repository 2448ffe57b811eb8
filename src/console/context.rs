//! A request to the console: whose it is, which page sent it, and what it asks for.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::Console;
use super::client::{self, Api, Refusal};
use super::session::{Key, Session};
use super::view::Frame;
use crate::http::peer::Peer;

/// The cookie: its prefix makes browsers refuse it unless it is `Secure`, of this host alone and for all paths.
const COOKIE: &str = "__Host-personas";
/// What scripts send with what they ask for by themselves: nobody has used the page.
pub(super) const POLL: &str = "x-console-poll";

/// A request of somebody who is signed in. Whoever is not is sent to sign in, and comes back.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub console: Console,
    pub session: Session,
    pub key: Key,
    /// The API as this operator may use it.
    pub api: Api,
    /// The parameters of the path, by name.
    captured: Vec<(String, String)>,
    query: Vec<(String, String)>,
    /// Path and query of the page.
    pub address: String,
    /// The page fetches itself again, and nobody has asked for it.
    pub is_poll: bool,
}

impl FromRequestParts<Console> for Context {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Response> {
        let address = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let is_poll = parts.headers.contains_key(POLL);
        let found = cookie(&parts.headers).and_then(|id| console.0.sessions.find(id, !is_poll));
        let Some((key, session)) = found else {
            return Err(to_sign_in(&address));
        };
        let api = Api::new(&console.0.api, &session.token, &parts.headers, parts.extensions.get::<Peer>());
        let captured = RawPathParams::from_request_parts(parts, console).await;
        let captured = captured.map_err(IntoResponse::into_response)?;
        let captured = captured.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned();
        Ok(Self {
            console: console.clone(),
            session,
            key,
            api,
            captured,
            query: query.collect(),
            address,
            is_poll,
        })
    }
}

/// The id of the session.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// The header that gives a browser its session, or takes it away.
pub(super) fn set_cookie(id: Option<&str>) -> (header::HeaderName, String) {
    let (value, age) = id.map_or(("", "; Max-Age=0"), |id| (id, ""));
    (header::SET_COOKIE, format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{age}"))
}

/// Sends somebody to sign in and, if it is a page of ours, back to where they were.
pub(super) fn to_sign_in(address: &str) -> Response {
    see_other(&client::path(["console", "sign-in"], &[("to", address)]))
}

/// Sends the browser to another page.
pub(super) fn see_other(address: &str) -> Response {
    match HeaderValue::from_str(address) {
        Ok(address) => (StatusCode::SEE_OTHER, [(header::LOCATION, address)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// A place within the console, or its beginning: nobody is sent elsewhere.
pub(super) fn within(address: &str) -> &str {
    let is_ours = address == "/console" || address.starts_with("/console/");
    let is_plain = address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_ours && is_plain { address } else { "/console" }
}

/// Whether a request that changes something was sent by a page of this very host. Browsers say so, in one of two ways.
pub(super) fn is_from_here(headers: &HeaderMap, peer: Option<&Peer>, console: &Console) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let trusted = &console.0.settings.trusted_proxies;
    let forwarded = peer.and_then(|peer| peer.forwarded(headers, "x-forwarded-host", trusted));
    let host = forwarded.or_else(|| text(header::HOST));
    let origin = text(header::ORIGIN).and_then(|origin| Url::parse(origin).ok());
    let (Some(host), Some(origin)) = (host, origin) else { return false };
    let Ok(here) = Url::parse(&format!("{}://{host}", origin.scheme())) else { return false };
    here.origin() == origin.origin()
}

impl Context {
    /// A parameter of the path.
    pub(super) fn named(&self, name: &str) -> &str {
        self.captured.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The space of the page.
    pub(super) fn space(&self) -> &str {
        self.named("space")
    }

    /// A parameter behind `?`, if it is not empty.
    pub(super) fn asked(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// A path of the API in this space.
    pub(super) fn of_space(&self, rest: &[&str], query: &[(&str, &str)]) -> String {
        client::path(["v1", "spaces", self.space()].iter().chain(rest), query)
    }

    /// Reads from the API in this space. A page that follows an act waits until it shows.
    pub(super) async fn read(&self, rest: &[&str], query: &[(&str, &str)]) -> Result<Value, Refusal> {
        let mut query = query.to_vec();
        query.extend(self.asked("min_offset").map(|offset| ("min_offset", offset)));
        self.api.get(&self.of_space(rest, &query)).await
    }

    /// The address of a page of this space.
    pub(super) fn page(&self, rest: &[&str], query: &[(&str, &str)]) -> String {
        client::path(["console", "s", self.space()].iter().chain(rest), query)
    }

    /// What a script of a page asks the API through: the same path behind `/console/api`.
    pub(super) fn through(&self, rest: &[&str], query: &[(&str, &str)]) -> String {
        client::path(["console", "api", "v1", "spaces", self.space()].iter().chain(rest), query)
    }

    /// This page, with one parameter changed.
    pub(super) fn here_with(&self, name: &str, value: &str) -> String {
        let others = self.query.iter().filter(|(known, _)| known != name && known != "done");
        let mut query: Vec<(&str, &str)> = others.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        query.push((name, value));
        let path = self.address.split('?').next().unwrap_or_default();
        let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        format!("{path}?{encoded}")
    }

    /// What surrounds a page of this operator.
    pub(super) fn frame(&self) -> Frame {
        Frame::of(self.space(), self.session.form_key.expose(), &self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for elsewhere in
            ["https://evil.example/", "//evil.example", "/\\evil.example", "/consoles", "/console/\nx", ""]
        {
            assert_eq!(within(elsewhere), "/console", "{elsewhere}");
        }
        assert_eq!(within("/console/s/default?x=1"), "/console/s/default?x=1");
    }

    #[test]
    fn one_cookie_among_others_is_read() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=b; __Host-personas=id; c"));
        assert_eq!(cookie(&headers), Some("id"));
        headers.insert(header::COOKIE, HeaderValue::from_static("personas=id"));
        assert_eq!(cookie(&headers), None);
    }
}
