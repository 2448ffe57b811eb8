//! Requests as backends and operators make them.

use std::time::Duration;

use serde_json::Value;

use crate::ledger::Outcome;

/// The write key of the first source.
pub(crate) const WRITE_KEY: &str = "wk_of_chaos";
/// The owner's token.
pub(crate) const TOKEN: &str = "tok_of_chaos";
/// Longer than the server takes for any request.
const PATIENCE: Duration = Duration::from_secs(45);

pub(crate) fn new() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
    builder.connect_timeout(Duration::from_secs(2)).build().unwrap()
}

/// Posts a batch, and says what became of it.
pub(crate) async fn track(client: &reqwest::Client, url: &str, body: String) -> Outcome {
    let request = client.post(format!("{url}/v1/batch")).basic_auth(WRITE_KEY, Some("")).body(body);
    let Ok(answer) = request.send().await else { return Outcome::Unknown };
    let status = answer.status().as_u16();
    let header =
        |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (offset, time) = (header("personas-offset"), header("retry-after"));
    match (status, offset) {
        // What cannot be taken of a batch is said with 200 or 400; the rest of it is stored all the same.
        (200 | 400, Some(offset)) => Outcome::Acknowledged(offset.parse().unwrap()),
        (429 | 503, _) => Outcome::Deferred(status, time.is_some()),
        _ => Outcome::Refused(status, answer.text().await.unwrap_or_default()),
    }
}

/// Reads something of the first space; what went wrong as text.
pub(crate) async fn try_get(client: &reqwest::Client, url: &str, path: &str) -> Result<Value, String> {
    let request = client.get(format!("{url}/v1/spaces/default/{path}")).bearer_auth(TOKEN);
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{path}: {status} {text}"));
    }
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// Makes something in the first space.
pub(crate) async fn post(client: &reqwest::Client, url: &str, path: &str, body: Value) -> Value {
    let request = client.post(format!("{url}/v1/spaces/default/{path}")).bearer_auth(TOKEN);
    let answer = request.body(body.to_string()).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{path}: {status} {text}");
    serde_json::from_str(&text).unwrap_or_default()
}
