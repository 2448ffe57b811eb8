//! `segment`: any endpoint that speaks Segment's tracking protocol, such as another Personas, Segment, `RudderStack`
//! or Jitsu: a base URL and a write key.

use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Fields, Opened, Spec, nothing, usual};
use crate::deliver::kind::{Answer, HttpKind, Invalid, Item, Reason, Request, Verdict, placed};
use crate::deliver::reach::Reach;
use crate::domain::Timestamp;

pub(super) const SPEC: Spec =
    Spec { name: "segment", secrets: &["write_key"], defaults: usual, complete: nothing, open };

/// Changes of one request, where nothing is said.
const BATCH: i64 = 100;
/// Changes of one request at most: what is sent along with them fits a body of 500 KB.
const BATCH_MAX: i64 = 250;

#[derive(Debug)]
struct Segment {
    /// Ends in `/v1/batch`.
    url: String,
    authorization: String,
    batch_max: usize,
}

fn open(settings: &Map<String, Value>, _: &Reach) -> Result<Opened, Vec<Invalid>> {
    let mut fields = Fields::of(settings, &["url", "write_key", "batch_max"]);
    let url = format!("{}/v1/batch", fields.url("url").trim_end_matches('/'));
    let write_key = fields.text("write_key");
    if write_key.contains(':') {
        fields.refuse("write_key", "it cannot contain a colon");
    }
    let authorization = format!("Basic {}", BASE64_STANDARD.encode(format!("{write_key}:")));
    let batch_max = fields.number("batch_max", BATCH, 1..=BATCH_MAX) as usize;
    fields.finish(Segment { url, authorization, batch_max }).map(|segment| Opened::Http(Box::new(segment)))
}

/// What Personas answers where some of a batch are refused.
#[derive(Deserialize)]
struct Partly {
    #[serde(default)]
    rejected: Vec<Rejected>,
}

#[derive(Deserialize)]
struct Rejected {
    index: usize,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl HttpKind for Segment {
    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn requests(&self, items: &[Item], now: Timestamp) -> Vec<Request> {
        let parts = placed(items.chunks(self.batch_max));
        parts.map(|(range, part)| self.request(part, range, now)).collect()
    }

    fn verdicts(&self, answer: &Answer, count: usize) -> Vec<Verdict> {
        let whole = self.judge(answer);
        let is_told = matches!(answer.status, 200 | 400);
        let partly = if is_told { serde_json::from_str::<Partly>(&answer.body).ok() } else { None };
        let mut verdicts = vec![whole; count];
        let rejected = partly.map(|partly| partly.rejected).unwrap_or_default();
        for Rejected { index, code, message } in rejected {
            if let Some(verdict) = verdicts.get_mut(index) {
                *verdict = Verdict::Rejected(Reason { code, message });
            }
        }
        verdicts
    }
}

impl Segment {
    fn request(&self, items: &[Item], range: Range<usize>, now: Timestamp) -> Request {
        let events: Vec<Value> = items.iter().map(|item| sent(&item.event)).collect();
        let body = json!({"batch": events, "sentAt": now.to_string()});
        Request {
            items: range,
            method: "POST".to_owned(),
            url: self.url.clone(),
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("authorization".to_owned(), self.authorization.clone()),
            ],
            secret_headers: vec!["authorization".to_owned()],
            body: body.to_string().into_bytes(),
        }
    }
}

/// The event without what says that it is for one destination alone: what receives it decides itself where it goes.
fn sent(event: &Value) -> Value {
    let mut event = event.clone();
    if let Some(fields) = event.as_object_mut() {
        fields.remove("integrations");
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ProfileNo;

    fn segment() -> Box<dyn HttpKind> {
        let Value::Object(settings) = json!({"url": "https://example.com/", "write_key": "wk"}) else {
            panic!("no object")
        };
        match open(&settings, &Reach::nowhere()).unwrap() {
            Opened::Http(kind) => kind,
            Opened::Own(_) => panic!("it speaks HTTP"),
        }
    }

    #[test]
    fn a_batch_with_the_write_key() {
        let item = Item {
            id: "dlv_1".to_owned(),
            profile: ProfileNo(1),
            profile_id: "prf_1".to_owned(),
            at: Timestamp::from_millis(0),
            attempts: 0,
            event: json!({"type": "identify", "userId": "u", "integrations": {"All": false, "D": true}}),
        };
        let requests = segment().requests(&[item], Timestamp::from_millis(0));
        let [request] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!(request.url, "https://example.com/v1/batch");
        assert_eq!(request.headers[1].1, "Basic d2s6");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let expected =
            json!({"batch": [{"type": "identify", "userId": "u"}], "sentAt": "1970-01-01T00:00:00.000Z"});
        assert_eq!(body, expected);
    }

    #[test]
    fn what_is_refused_of_a_batch_is_refused_alone() {
        let body = r#"{"success":true,"accepted":1,"rejected":[{"index":1,"code":"no_user_anon_id","message":"m"}]}"#;
        let answer = Answer { status: 200, retry_after: None, body: body.to_owned() };
        let verdicts = segment().verdicts(&answer, 2);
        assert_eq!(verdicts[0], Verdict::Delivered);
        let reason = Reason { code: "no_user_anon_id".to_owned(), message: "m".to_owned() };
        assert_eq!(verdicts[1], Verdict::Rejected(reason));
        let busy = Answer { status: 503, retry_after: None, body: body.to_owned() };
        assert!(segment().verdicts(&busy, 2).iter().all(|v| matches!(v, Verdict::Retry { .. })));
    }
}
