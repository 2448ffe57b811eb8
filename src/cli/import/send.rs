//! Delivering batches: until they are answered, with pauses that grow, or until a retry cannot help.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::read::{Batch, Read};
use crate::cli::client::{Answer, Client};

/// Pauses between tries, unless the server names one.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Tries of one request before giving up: about ten minutes.
const TRIES: u32 = 45;
/// The server answers questions about 250,000 events.
const REPORT_EVENTS: u64 = 200_000;
const REPORT_RANGES: usize = 5_000;
const REPORT_PAUSE: Duration = Duration::from_millis(200);

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) accepted: u64,
    pub(super) refused: Vec<Refusal>,
    /// Where the accepted events stand in the log.
    pub(super) range: Option<(u64, u64)>,
    /// The last line that is settled by this.
    pub(super) line: u64,
    /// So many bytes of the file were read by then.
    pub(super) position: u64,
}

/// A line the server refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) line: u64,
    pub(super) code: String,
    pub(super) message: String,
}

/// Sends one batch and says what became of it. An error means that going on makes no sense.
pub(super) async fn deliver(client: &Client, read: Read) -> anyhow::Result<Outcome> {
    let Read { batch, too_long, line, position } = read;
    let mut outcome = Outcome { line, position, ..Outcome::default() };
    if !batch.lines.is_empty() {
        let body = format!("{{\"batch\":[{}]}}", batch.events);
        let answer = persistently(client, "/v1/import", &body).await?;
        judge(&answer, &batch, &mut outcome)?;
    }
    outcome.refused.extend(too_long.into_iter().map(|line| Refusal {
        line,
        code: "payload_too_large".to_owned(),
        message: "the line is longer than any event may be".to_owned(),
    }));
    outcome.refused.sort_by_key(|refusal| refusal.line);
    Ok(outcome)
}

/// Posts until there is an answer that a retry would not change.
async fn persistently(client: &Client, path: &str, body: &str) -> anyhow::Result<Answer> {
    let mut pause = PAUSE_FIRST;
    for last in (0..TRIES).rev() {
        let wait = match client.send(Method::POST, path, Some(body.to_owned())).await {
            Ok(answer) if !answer.is_temporary() => return Ok(answer),
            Ok(answer) if last == 0 => bail!("the server keeps refusing: {}", answer.complaint()),
            Ok(answer) => answer.retry_after().unwrap_or(pause),
            Err(error) if last == 0 => return Err(error).context("the server cannot be reached any more"),
            Err(_) => pause,
        };
        tokio::time::sleep(wait).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    bail!("the server does not answer")
}

fn judge(answer: &Answer, batch: &Batch, outcome: &mut Outcome) -> anyhow::Result<()> {
    let json = &answer.json;
    match answer.status {
        StatusCode::OK | StatusCode::BAD_REQUEST => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            bail!("the server does not take the write key: {}", answer.complaint())
        }
        _ => bail!("the server refused a batch: {}", answer.complaint()),
    }
    let refusal = |line: u64, told: &Value| {
        let word = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        Refusal { line, code: word("code"), message: word("message") }
    };
    if let Some(items) = json["rejected"].as_array() {
        let line_of = |item: &Value| batch.lines.get(item["index"].as_u64()? as usize).copied();
        outcome.refused.extend(items.iter().filter_map(|item| Some(refusal(line_of(item)?, item))));
    } else if answer.status == StatusCode::BAD_REQUEST {
        outcome.refused.extend(batch.lines.iter().map(|line| refusal(*line, json)));
    }
    outcome.accepted = (batch.lines.len() - outcome.refused.len()) as u64;
    if outcome.accepted > 0 {
        let offset = answer.headers.get("personas-offset").and_then(|value| value.to_str().ok());
        let last: u64 =
            offset.and_then(|text| text.parse().ok()).context("the answer has no Personas-Offset")?;
        outcome.range = Some(((last + 1).saturating_sub(outcome.accepted), last));
    }
    Ok(())
}

/// Waits until the events at these places are processed, and counts those whose message ids were known.
pub(super) async fn count_duplicates(client: &Client, ranges: &[(u64, u64)]) -> anyhow::Result<u64> {
    let mut duplicates = 0;
    for part in portions(ranges) {
        let body = json!({ "ranges": part }).to_string();
        loop {
            let answer = persistently(client, "/v1/import/report", &body).await?;
            if answer.status != StatusCode::OK {
                bail!("everything is sent, but duplicates cannot be counted: {}", answer.complaint());
            }
            if answer.json["processed"] == true {
                duplicates += answer.json["duplicates"].as_u64().unwrap_or_default();
                break;
            }
            tokio::time::sleep(REPORT_PAUSE).await;
        }
    }
    Ok(duplicates)
}

/// The same places in questions the server answers.
fn portions(ranges: &[(u64, u64)]) -> Vec<Vec<(u64, u64)>> {
    let (mut portions, mut current, mut room) = (Vec::new(), Vec::new(), REPORT_EVENTS);
    for (mut first, last) in ranges.iter().copied() {
        while first <= last {
            let end = last.min(first + room - 1);
            current.push((first, end));
            room -= end - first + 1;
            first = end + 1;
            if room == 0 || current.len() == REPORT_RANGES {
                portions.push(std::mem::take(&mut current));
                room = REPORT_EVENTS;
            }
        }
    }
    portions.extend(Some(current).filter(|rest| !rest.is_empty()));
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_cut_to_size() {
        assert_eq!(portions(&[]), Vec::<Vec<(u64, u64)>>::new());
        assert_eq!(portions(&[(1, 10), (20, 30)]), [vec![(1, 10), (20, 30)]]);
        let cut = portions(&[(1, 10), (11, REPORT_EVENTS + 5)]);
        assert_eq!(cut, [vec![(1, 10), (11, REPORT_EVENTS)], vec![(REPORT_EVENTS + 1, REPORT_EVENTS + 5)]]);
    }
}
