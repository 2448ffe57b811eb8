//! A small client of our own HTTP interface, for the commands that talk to a running server.

use std::time::Duration;

use anyhow::Context;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

/// Longest wait for a connection, and for a whole answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// The same for an answer that is as long as what is asked for.
const LONG_TIMEOUT: Duration = Duration::from_hours(24);

/// Talks to one server with one secret, which is sent as the user name of Basic.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    secret: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Null when the body is no JSON.
    pub(super) json: Value,
}

impl Answer {
    /// Whether the same request may succeed later.
    pub(super) fn is_temporary(&self) -> bool {
        let status = self.status;
        status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT
    }

    /// When the server wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// What the server says is wrong, in any of its dialects.
    pub(super) fn complaint(&self) -> String {
        let json = &self.json;
        let words = [&json["detail"], &json["message"], &json["error"]["message"]];
        let told = words.iter().find_map(|word| word.as_str()).unwrap_or("no reason was given");
        format!("{told} ({})", self.status)
    }
}

impl Client {
    /// A client of the server at `url`.
    pub(super) fn new(url: &Url, secret: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("personas/", env!("CARGO_PKG_VERSION")))
            .build()
            .context("the HTTP client")?;
        Ok(Self { http, url: url.clone(), secret: secret.to_owned() })
    }

    /// Sends a request and reads the answer, whatever its status. An error is one of the connection.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, reqwest::Error> {
        let url = format!("{}{path}", self.url.as_str().trim_end_matches('/'));
        let mut request = self.http.request(method, url).basic_auth(&self.secret, Some(""));
        if let Some(body) = body {
            request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await?;
        Ok(Answer { status, headers, json: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    /// Asks for something long, to be read piece by piece; fails with words for people unless it is sent.
    pub(super) async fn open(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let url = format!("{}{path}", self.url.as_str().trim_end_matches('/'));
        let request = self.http.get(url).basic_auth(&self.secret, Some("")).timeout(LONG_TIMEOUT);
        let response = request.send().await.with_context(|| format!("no server answers at {}", self.url))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let json = response.json().await.unwrap_or_default();
        anyhow::bail!(Answer { status, headers, json }.complaint())
    }

    /// Fails with words for people unless a server answers.
    pub(super) async fn reach(&self) -> anyhow::Result<()> {
        let url = &self.url;
        let reached = self.send(Method::GET, "/livez", None).await;
        let answer = reached.with_context(|| {
            format!("no server answers at {url}; start one with `personas serve`, or name it with --url")
        })?;
        anyhow::ensure!(answer.status.is_success(), "{url} does not look like personas: {}", answer.status);
        Ok(())
    }
}
