//! `webhook`: changes as JSON to a URL, signed by the Standard Webhooks specification, and as Segment's webhooks are where
//! that is wanted.
//!
//! A secret is rotated without a gap: for as long as there is a previous one, everything is signed with both.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Fields, Opened, Spec, usual};
use crate::clock::IdMaker;
use crate::deliver::kind::{HttpKind, Invalid, Item, Request, placed};
use crate::deliver::reach::Reach;
use crate::domain::Timestamp;

pub(super) const SPEC: Spec = Spec {
    name: "webhook",
    secrets: &["secret", "previous_secret", "shared_secret", "headers"],
    takes_events: true,
    is_store: false,
    defaults: usual,
    complete,
    open,
};

const FIELDS: [&str; 7] =
    ["url", "method", "headers", "batch_max", "secret", "previous_secret", "shared_secret"];
const METHODS: [&str; 3] = ["POST", "PUT", "PATCH"];
/// Changes of one request at most.
const BATCH_MAX: i64 = 1_000;
/// Beginning of a secret.
const PREFIX: &str = "whsec_";
/// Bytes of a secret: those the specification recommends.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Headers that are ours to set.
const OWN: [&str; 5] =
    ["webhook-id", "webhook-timestamp", "webhook-signature", "x-signature", "content-type"];

#[derive(Debug)]
struct Webhook {
    url: String,
    method: String,
    headers: Vec<(String, String)>,
    batch_max: usize,
    /// The present one first.
    secrets: Vec<Vec<u8>>,
    shared_secret: Option<String>,
}

/// A signing secret nobody can guess.
pub fn new_secret(ids: &IdMaker) -> String {
    format!("{PREFIX}{}", BASE64_STANDARD.encode(ids.bytes::<32>()))
}

fn complete(settings: &mut Map<String, Value>, ids: &IdMaker) {
    let secret = settings.entry("secret").or_insert(Value::Null);
    if secret.is_null() {
        *secret = new_secret(ids).into();
    }
}

fn open(settings: &Map<String, Value>, _: &Reach) -> Result<Opened, Vec<Invalid>> {
    let mut fields = Fields::of(settings, &FIELDS);
    let url = fields.url("url");
    let method = fields.optional("method").unwrap_or("POST").to_owned();
    if !METHODS.contains(&method.as_str()) {
        fields.refuse("method", "it must be POST, PUT or PATCH");
    }
    let headers = read_headers(&mut fields);
    let batch_max = fields.number("batch_max", 1, 1..=BATCH_MAX) as usize;
    if fields.get("secret").is_none() {
        fields.refuse("secret", "it is missing: whsec_ and 24 to 64 bytes in base64");
    }
    let secrets =
        ["secret", "previous_secret"].into_iter().filter_map(|field| read_secret(&mut fields, field));
    let secrets = secrets.collect();
    let shared_secret = fields.optional("shared_secret").map(str::to_owned);
    fields
        .finish(Webhook { url, method, headers, batch_max, secrets, shared_secret })
        .map(|webhook| Opened::Http(Box::new(webhook)))
}

fn read_secret(fields: &mut Fields<'_>, field: &str) -> Option<Vec<u8>> {
    let text = fields.optional(field)?;
    let bytes = text.strip_prefix(PREFIX).and_then(|base64| BASE64_STANDARD.decode(base64).ok());
    let bytes = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
    if bytes.is_none() {
        fields.refuse(field, "it must be whsec_ and 24 to 64 bytes in base64");
    }
    bytes
}

fn read_headers(fields: &mut Fields<'_>) -> Vec<(String, String)> {
    let Some(value) = fields.get("headers") else { return Vec::new() };
    let Some(headers) = value.as_object() else {
        fields.refuse("headers", "it must be an object of header names and values");
        return Vec::new();
    };
    let mut read = Vec::new();
    for (name, value) in headers {
        let field = format!("headers.{name}");
        let known = axum::http::HeaderName::from_bytes(name.as_bytes());
        let value = value.as_str().filter(|text| axum::http::HeaderValue::from_str(text).is_ok());
        match (known, value) {
            (Ok(known), _) if OWN.contains(&known.as_str()) => {
                fields.refuse(&field, "this header is set by the service");
            }
            (Ok(known), Some(value)) => read.push((known.as_str().to_owned(), value.to_owned())),
            (Err(_), _) => fields.refuse(&field, "it is no name of a header"),
            (_, None) => fields.refuse(&field, "it must be a text of printable characters"),
        }
    }
    read
}

impl HttpKind for Webhook {
    fn batch_max(&self) -> usize {
        self.batch_max
    }

    fn requests(&self, items: &[Item], now: Timestamp) -> Vec<Request> {
        let parts = placed(items.chunks(self.batch_max));
        parts.map(|(range, part)| self.request(part, range, now)).collect()
    }
}

impl Webhook {
    fn request(&self, items: &[Item], range: std::ops::Range<usize>, now: Timestamp) -> Request {
        let (id, body) = match items {
            [item] if self.batch_max == 1 => (item.id.clone(), item.event.to_string()),
            _ => {
                let events: Vec<&Value> = items.iter().map(|item| &item.event).collect();
                (batch_id(items), serde_json::to_string(&events).unwrap_or_default())
            }
        };
        let seconds = now.millis().div_euclid(1_000);
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("webhook-id".to_owned(), id.clone()),
            ("webhook-timestamp".to_owned(), seconds.to_string()),
            ("webhook-signature".to_owned(), self.signature(&id, seconds, &body)),
        ];
        if let (Some(secret), Some(first)) = (&self.shared_secret, items.first()) {
            headers.push(("x-signature".to_owned(), x_signature(secret, &first.event.to_string())));
        }
        headers.extend(self.headers.iter().cloned());
        let mut secret_headers: Vec<String> = self.headers.iter().map(|(name, _)| name.clone()).collect();
        secret_headers.extend(["webhook-signature".to_owned(), "x-signature".to_owned()]);
        Request {
            items: range,
            method: self.method.clone(),
            url: self.url.clone(),
            headers,
            secret_headers,
            body: body.into_bytes(),
        }
    }

    fn signature(&self, id: &str, seconds: i64, body: &str) -> String {
        let content = format!("{id}.{seconds}.{body}");
        let sign = |secret: &Vec<u8>| {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), content.as_bytes());
            format!("v1,{}", BASE64_STANDARD.encode(tag))
        };
        self.secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

/// Segment's signature: of a batch it is that of its first event.
fn x_signature(secret: &str, first: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    hex::encode(hmac::sign(&key, first.as_bytes()))
}

/// The same for the same changes.
fn batch_id(items: &[Item]) -> String {
    let mut hash = Sha256::new();
    for item in items {
        hash.update(item.id.as_bytes());
    }
    let digits: String = hex::encode(hash.finalize()).chars().take(32).collect();
    format!("bat_{digits}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::ProfileNo;

    fn opened(settings: Value) -> Result<Box<dyn HttpKind>, Vec<Invalid>> {
        let Value::Object(settings) = settings else { panic!("no object") };
        open(&settings, &Reach::nowhere()).map(|opened| match opened {
            Opened::Http(kind) => kind,
            Opened::Own(_) => panic!("it speaks HTTP"),
        })
    }

    fn item(n: u64) -> Item {
        Item {
            id: format!("dlv_{n}"),
            profile: ProfileNo(n),
            profile_id: format!("prf_{n}"),
            at: Timestamp::from_millis(0),
            attempts: 0,
            event: json!({"type": "identify", "userId": format!("u{n}")}),
        }
    }

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcg==";

    #[test]
    fn the_example_of_the_specification_has_its_signature() {
        let webhook = Webhook {
            url: String::new(),
            method: String::new(),
            headers: Vec::new(),
            batch_max: 1,
            secrets: vec![BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()],
            shared_secret: None,
        };
        let signature =
            webhook.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn both_secrets_sign_and_an_independent_implementation_agrees() {
        let settings = json!({"url": "https://example.com/h", "secret": SECRET, "previous_secret": OTHER});
        let webhook = opened(settings).unwrap();
        for n in 0..200 {
            let now = crate::clock::Clock::System.now();
            let request = webhook.requests(&[item(n)], now).remove(0);
            let mut headers = axum::http::HeaderMap::new();
            for (name, value) in &request.headers {
                let name: axum::http::HeaderName = name.parse().unwrap();
                headers.insert(name, value.parse().unwrap());
            }
            for secret in [SECRET, OTHER] {
                let verifier = standardwebhooks::Webhook::new(secret).unwrap();
                verifier.verify(&request.body, &headers).unwrap();
                let mut tampered = request.body.clone();
                tampered[n as usize % request.body.len()] ^= 1;
                assert!(verifier.verify(&tampered, &headers).is_err());
            }
        }
    }

    #[test]
    fn batches_are_lists_with_segments_signature_of_the_first() {
        let settings = json!({"url": "https://example.com/h", "secret": SECRET, "batch_max": 2, "method": "PUT",
            "shared_secret": "s", "headers": {"Authorization": "Bearer canary"}});
        let requests =
            opened(settings).unwrap().requests(&[item(1), item(2), item(3)], Timestamp::from_millis(0));
        assert_eq!(requests.iter().map(|r| r.items.clone()).collect::<Vec<_>>(), [0..2, 2..3]);
        let bodies: Vec<Value> = requests.iter().map(|r| serde_json::from_slice(&r.body).unwrap()).collect();
        assert_eq!(bodies[0].as_array().unwrap().len(), 2);
        assert_eq!(bodies[1], json!([item(3).event]));
        let of = |name: &str| &requests[0].headers.iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!(*of("x-signature"), x_signature("s", &item(1).event.to_string()));
        assert_eq!(of("x-signature").len(), 40);
        assert_eq!((requests[0].method.as_str(), of("authorization").as_str()), ("PUT", "Bearer canary"));
        assert!(requests[0].secret_headers.contains(&"authorization".to_owned()));
    }

    #[test]
    fn settings_that_are_no_good_are_told_all_at_once() {
        let settings = json!({"url": "ftp://x", "method": "GET", "batch_max": 0, "secret": "x", "colour": 1,
            "headers": {"webhook-id": "x", "a b": "x", "c": 1}});
        let wrong = opened(settings).unwrap_err();
        let mut fields: Vec<&str> = wrong.iter().map(|w| w.field.as_str()).collect();
        fields.sort_unstable();
        let expected = [
            "batch_max",
            "colour",
            "headers.a b",
            "headers.c",
            "headers.webhook-id",
            "method",
            "secret",
            "url",
        ];
        assert_eq!(fields, expected);
        assert_eq!(opened(json!({})).unwrap_err().len(), 2, "url and secret");
    }
}
