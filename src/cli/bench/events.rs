//! The events everything is measured with: about 780 bytes each, 20 names, the same for service and reference. Part of
//! each is random, so that they do not compress better than real ones; message ids are random as those of most SDKs.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// Users the events are spread over.
pub(super) const USERS: u64 = 40_000;
/// The first user of those who bring devices.
const MERGED: u64 = 1_000_000_000;
/// Digits of a user's number, if that is enough.
const USER_DIGITS: usize = 6;
/// Events of a user one after the other, in sessions.
const SESSION: u64 = 5;
pub(super) const NAMES: [&str; 20] = [
    "Products Searched",
    "Product List Viewed",
    "Product List Filtered",
    "Promotion Viewed",
    "Promotion Clicked",
    "Product Clicked",
    "Product Viewed",
    "Product Added",
    "Product Removed",
    "Cart Viewed",
    "Checkout Started",
    "Checkout Step Viewed",
    "Checkout Step Completed",
    "Payment Info Entered",
    "Order Completed",
    "Order Updated",
    "Order Refunded",
    "Coupon Applied",
    "Product Shared",
    "Product Reviewed",
];
/// Of a payload: between its properties and the last part of the address.
const MIDDLE: &str = "\"},\"context\":{\"campaign\":{\"source\":\"newsletter\",\"name\":\"winter sale\"},\
                      \"ip\":\"192.0.2.";
/// Of a payload: from the address to the page.
const USER_AGENT: &str = "\",\"locale\":\"en-GB\",\"userAgent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 \
                          (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\",\"page\":{\"path\":\"/p/";
/// Columns of a reference row.
const COLUMNS: i16 = 5;
/// Postgres counts from 2000 on.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;

/// Makes events that no other generator of the run makes.
#[derive(Debug)]
pub(super) struct Generator {
    state: u64,
    stream: u64,
    count: u64,
    timestamp: String,
    millis: i64,
    payload: Vec<u8>,
    /// Whose the last event was.
    user: u64,
    traffic: Traffic,
}

/// The first so many users.
#[derive(Debug, Clone, Copy)]
pub(super) struct Users(pub(super) u64);

impl Default for Users {
    fn default() -> Self {
        Self(USERS)
    }
}

impl Users {
    /// One of them.
    pub(super) fn id(self, number: u64) -> String {
        let number = number % self.0;
        format!("user-{number:0USER_DIGITS$}")
    }
}

/// Whose the events are.
#[derive(Debug, Clone)]
pub(super) enum Traffic {
    /// Every event is another user's: the worst case, since nothing is in any cache.
    Uniform(Users),
    /// Each user sends [`SESSION`] events one after the other, as clients that collect events before they send them.
    Sessions,
    /// These users one after the other, shared with other generators.
    Sweep(Users, Arc<AtomicU64>),
    /// Of three events one is of a device that is seen for the first time, one of any user, and one identifies the
    /// device's user, who has three of them: two profiles become one, but for the first of his devices.
    Merging(Arc<AtomicU64>),
}

impl Generator {
    pub(super) fn new(stream: u64, now: crate::domain::Timestamp, traffic: Traffic) -> Self {
        let mut generator = Self {
            state: stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            stream: 0,
            count: 0,
            timestamp: now.to_string(),
            millis: now.millis(),
            payload: Vec::new(),
            user: 0,
            traffic,
        };
        generator.stream = generator.random();
        generator
    }

    /// The next of a sequence that is good enough for spreading things.
    pub(super) fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// A body with that many events, and the whole request around it.
    pub(super) fn request(&mut self, events: u64, head: &str, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(events as usize * 800 + 16);
        body.extend_from_slice(b"{\"batch\":[");
        for n in 0..events {
            if n > 0 {
                body.push(b',');
            }
            self.event(&mut body);
        }
        body.extend_from_slice(b"]}");
        out.clear();
        let _memory = write!(out, "{head}Content-Length: {}\r\n\r\n", body.len());
        out.extend_from_slice(&body);
    }

    fn event(&mut self, out: &mut Vec<u8>) {
        let (name, user, id) = self.next();
        let kind = if matches!(user, Whose::Both { .. }) { "identify" } else { "track" };
        for text in ["{\"type\":\"", kind, "\",\"messageId\":\""] {
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        if let Whose::User(user) | Whose::Both { user, .. } = user {
            out.extend_from_slice(b"\",\"userId\":\"user-");
            digits::<10>(out, user, width(user));
        }
        if let Whose::Device(device) | Whose::Both { device, .. } = user {
            out.extend_from_slice(b"\",\"anonymousId\":\"device-");
            digits::<10>(out, device, width(device));
        }
        for text in ["\",\"event\":\"", name, "\",\"timestamp\":\"", &self.timestamp, "\","] {
            out.extend_from_slice(text.as_bytes());
        }
        // The payload is an object of its own; here its members are the event's.
        out.extend_from_slice(self.payload.get(1..).unwrap_or_default());
    }

    /// The same event as a row of `COPY … (FORMAT BINARY)`: id, user, name, time, payload.
    pub(super) fn row(&mut self, out: &mut Vec<u8>) {
        let (name, user, id) = self.next();
        let micros = (self.millis - POSTGRES_EPOCH_MS) * 1_000;
        let user = Users(u64::MAX).id(user.number());
        // Version 1 of jsonb's wire format is the text.
        let jsonb = [&[1], self.payload.as_slice()].concat();
        out.extend_from_slice(&COLUMNS.to_be_bytes());
        for field in [id.as_bytes(), user.as_bytes(), name.as_bytes(), &micros.to_be_bytes(), &jsonb] {
            out.extend_from_slice(&(field.len() as i32).to_be_bytes());
            out.extend_from_slice(field);
        }
    }

    fn next(&mut self) -> (&'static str, Whose, Uuid) {
        self.count += 1;
        let id = Uuid::from_u64_pair(scattered(self.count), self.stream);
        let (a, b, c) = (self.random(), self.random(), self.random());
        let (price, quantity, product) = (a % 20_000, 1 + a % 5, b % 5_000);
        // Not by `write!`, which would take as long as the server takes: what the load costs, the server does not get.
        let out = &mut self.payload;
        out.clear();
        for (text, number) in [
            ("{\"properties\":{\"order_id\":\"o-", Written::Hex(a, 16)),
            ("\",\"product_id\":\"p-", Written::Decimal(product, 4)),
            ("\",\"sku\":\"S-", Written::Decimal(product, 5)),
            ("\",\"category\":\"category-", Written::Decimal(b % 40, 2)),
            ("\",\"brand\":\"brand-", Written::Decimal(c % 90, 2)),
            ("\",\"price\":", Written::Decimal(100 + price / 100, 3)),
            (".", Written::Decimal(price % 100, 2)),
            (",\"revenue\":", Written::Decimal(100 + price / 100, 3)),
            (".", Written::Decimal(price % 100, 2)),
            (",\"quantity\":", Written::Decimal(quantity, 1)),
            (",\"currency\":\"EUR\",\"coupon\":\"c-", Written::Decimal(c % 30, 2)),
            ("\",\"session\":\"", Written::Hex(b, 16)),
            ("", Written::Hex(c, 16)),
            (MIDDLE, Written::Decimal(c % 250, 3)),
            (USER_AGENT, Written::Decimal(product, 4)),
            ("\",\"url\":\"https://shop.example.com/p/", Written::Decimal(product, 4)),
            ("?ref=", Written::Hex(c, 16)),
            ("\",\"title\":\"Product ", Written::Decimal(product, 4)),
        ] {
            out.extend_from_slice(text.as_bytes());
            match number {
                Written::Decimal(number, width) => digits::<10>(out, number, width),
                Written::Hex(number, width) => digits::<16>(out, number, width),
            }
        }
        out.extend_from_slice(b"\"},\"library\":{\"name\":\"bench\",\"version\":\"1.0.0\"}}}");
        let name = NAMES.get((c >> 32) as usize % NAMES.len()).copied().unwrap_or_default();
        (name, self.whose(a >> 20), id)
    }

    fn whose(&mut self, random: u64) -> Whose {
        match &self.traffic {
            Traffic::Uniform(Users(users)) => Whose::User(random % users),
            Traffic::Sessions => {
                if self.count % SESSION == 1 {
                    self.user = random % USERS;
                }
                Whose::User(self.user)
            }
            Traffic::Sweep(Users(users), next) => Whose::User(next.fetch_add(1, Ordering::Relaxed) % users),
            Traffic::Merging(next) => match self.count % 3 {
                1 => {
                    self.user = next.fetch_add(1, Ordering::Relaxed);
                    Whose::Device(self.user)
                }
                2 => Whose::User(random % USERS),
                _ => Whose::Both { user: MERGED + self.user / 3, device: self.user },
            },
        }
    }
}

/// Whose an event is.
#[derive(Debug, Clone, Copy)]
enum Whose {
    User(u64),
    Device(u64),
    Both { user: u64, device: u64 },
}

impl Whose {
    const fn number(self) -> u64 {
        match self {
            Self::User(number) | Self::Device(number) | Self::Both { user: number, .. } => number,
        }
    }
}

/// Digits a number is written with.
fn width(number: u64) -> usize {
    USER_DIGITS.max(number.max(1).ilog10() as usize + 1)
}

/// Another number for every number, in no order (the finalizer of `SplitMix64`).
fn scattered(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number in a payload, and how many digits it has.
enum Written {
    Decimal(u64, usize),
    Hex(u64, usize),
}

/// The last `width` digits of a number.
fn digits<const BASE: u64>(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, 0);
    for digit in out.iter_mut().skip(start).rev() {
        *digit = b"0123456789abcdef"[(number % BASE) as usize];
        number /= BASE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_their_size_and_are_different() {
        let mut generator = Generator::new(7, crate::domain::Timestamp::from_millis(0), Traffic::Sessions);
        let mut out = Vec::new();
        generator.request(100, "", &mut out);
        let body = String::from_utf8(out).unwrap();
        let json: serde_json::Value = serde_json::from_str(body.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let events = json["batch"].as_array().unwrap();
        let ids: std::collections::BTreeSet<_> = events.iter().map(|e| e["messageId"].to_string()).collect();
        assert_eq!(ids.len(), 100);
        let users: Vec<_> = events.iter().map(|e| e["userId"].to_string()).collect();
        assert_eq!(users.chunk_by(|a, b| a == b).count(), 100 / SESSION as usize);
        let average = body.len() / 100;
        assert!((740..820).contains(&average), "{average}");
    }
}
