//! `segment`: any endpoint that speaks Segment's tracking protocol, such as another Personas, Segment, `RudderStack`
//! or Jitsu: a base URL and a write key.

use std::ops::Range;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Fields, Opened, Spec, nothing, usual};
use crate::deliver::http::BODY_MAX;
use crate::deliver::kind::{Answer, HttpKind, Invalid, Item, Reason, Request, Verdict};
use crate::deliver::payload::is_passed_on;
use crate::deliver::reach::Reach;
use crate::domain::Timestamp;

pub(super) const SPEC: Spec = Spec {
    name: "segment",
    secrets: &["write_key"],
    takes_events: true,
    is_store: false,
    defaults: usual,
    complete: nothing,
    open,
};

/// Changes of one request, where nothing is said.
const BATCH: i64 = 100;
/// Changes of one request at most.
const BATCH_MAX: i64 = 250;
/// Bytes of the events of one request, one alone left aside: receivers of the protocol take 500 KB.
const BYTES_MAX: usize = 450_000;

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
        let events: Vec<String> = items.iter().map(|item| sent(&item.event).to_string()).collect();
        let (mut requests, mut start) = (Vec::new(), 0);
        while let Some(rest) = events.get(start..).filter(|rest| !rest.is_empty()) {
            let end = start + length(rest, self.batch_max);
            requests.push(self.request(events.get(start..end).unwrap_or_default(), start..end, now));
            start = end;
        }
        requests
    }

    fn refuses(&self, item: &Item) -> Option<Reason> {
        let message = "the tracking calls know no deletion: ask for it by Segment's own regulations";
        let reason = || Reason { code: "UNSUPPORTED_EVENT_TYPE".to_owned(), message: message.to_owned() };
        item.event.get("type").is_some_and(|kind| kind == "delete").then(reason)
    }

    fn verdicts(&self, answer: &Answer, count: usize) -> Vec<Verdict> {
        let whole = self.judge(answer);
        let is_told = matches!(answer.status, 200 | 400);
        let partly = if is_told { serde_json::from_str::<Partly>(&answer.body).ok() } else { None };
        if partly.is_none() && answer.status == 200 && answer.body.len() >= BODY_MAX {
            // Which of them are refused was said behind the end of what is read.
            let message = "which of them were refused is said in more bytes than are read".to_owned();
            let reason = Reason { code: "ANSWER_TOO_LONG".to_owned(), message };
            return vec![Verdict::Retry { reason, after: None }; count];
        }
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
    /// The request for some events, each as JSON.
    fn request(&self, events: &[String], range: Range<usize>, now: Timestamp) -> Request {
        let body = format!(r#"{{"batch":[{}],"sentAt":"{now}"}}"#, events.join(","));
        Request {
            items: range,
            method: "POST".to_owned(),
            url: self.url.clone(),
            headers: vec![
                ("content-type".to_owned(), "application/json".to_owned()),
                ("authorization".to_owned(), self.authorization.clone()),
            ],
            secret_headers: vec!["authorization".to_owned()],
            body: body.into_bytes(),
        }
    }
}

/// How many of the first events share a request.
fn length(events: &[String], batch_max: usize) -> usize {
    let mut bytes = 0;
    let fits = |event: &&String| {
        // And the comma.
        bytes += event.len() + 1;
        bytes <= BYTES_MAX
    };
    events.iter().take(batch_max).take_while(fits).count().max(1)
}

/// The event without what says that it is for one destination alone: what receives it decides itself where it goes. What an
/// event that is passed on says of that itself goes along.
fn sent(event: &Value) -> Value {
    let (mut sent, is_ours) = (event.clone(), !is_passed_on(event));
    if let Some(fields) = sent.as_object_mut().filter(|_| is_ours) {
        fields.remove("integrations");
    }
    sent
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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

    fn item(event: Value) -> Item {
        Item {
            id: "dlv_1".to_owned(),
            profile: ProfileNo(1),
            profile_id: "prf_1".to_owned(),
            at: Timestamp::from_millis(0),
            attempts: 0,
            event,
        }
    }

    #[test]
    fn what_is_more_than_receivers_take_is_several_requests() {
        let of = |bytes: usize| item(json!({"type": "identify", "traits": {"text": "x".repeat(bytes)}}));
        // Many that are too much together, one that is too much alone, and small ones.
        let mut items: Vec<Item> = (0..95).map(|_| of(20_000)).collect();
        items.push(of(600_000));
        items.extend((0..4).map(|_| of(10)));
        let requests = segment().requests(&items, Timestamp::from_millis(0));
        let mut next = 0;
        for request in &requests {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(body["batch"].as_array().unwrap().len(), request.items.len());
            assert_eq!(request.items.start, next, "in order, each once");
            next = request.items.end;
            assert!(request.body.len() < 460_000 || request.items == (95..96), "{}", request.body.len());
        }
        assert_eq!((next, requests.len()), (100, 7));
    }

    #[test]
    fn an_answer_that_is_cut_says_nothing() {
        let rejected = r#"{"index":1,"code":"c","message":"m"},"#.repeat(2_000);
        let mut body = format!(r#"{{"success":true,"rejected":[{rejected}"#);
        body.truncate(BODY_MAX);
        let answer = |status, body: &str| Answer { status, retry_after: None, body: body.to_owned() };
        let verdicts = segment().verdicts(&answer(200, &body), 2);
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Retry { .. })), "{verdicts:?}");
        // A receiver that says nothing about single ones takes all.
        assert_eq!(segment().verdicts(&answer(200, "OK"), 2), vec![Verdict::Delivered; 2]);
        let verdicts = segment().verdicts(&answer(400, &body), 2);
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Rejected(_))), "{verdicts:?}");
    }

    #[test]
    fn a_batch_with_the_write_key() {
        let item =
            item(json!({"type": "identify", "userId": "u", "integrations": {"All": false, "D": true}}));
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
    fn what_an_event_that_is_passed_on_says_of_integrations_goes_along() {
        let own = json!({"All": true, "Mixpanel": false});
        let personas = json!({"source_id": null, "segment_id": "prf_1"});
        let event = json!({"type": "track", "integrations": own, "context": {"personas": personas}});
        assert_eq!(sent(&event)["integrations"], own);
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
