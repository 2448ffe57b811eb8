//! What is sent: calls of people in sessions, as a function of a seed and a number, and what must follow from them.
//!
//! Of each user some calls come before it is known who it is, on four devices that an identify call links; of every fourth
//! user, never: its audience is the one that is delivered. Calls come late and shuffled; some come twice, in
//! the same batch, in others and to other processes. Whatever the order, the same people and counts follow.

use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Calls of one session.
const SESSION: u64 = 8;
/// Devices of a user: fewer than a profile may have.
const DEVICES: u64 = 4;
/// Users of an account.
const ACCOUNT: u64 = 50;
const MINUTE: i64 = 60_000;
/// Calls come up to ten days late.
const LATE_MINUTES: u64 = 10 * 24 * 60;

/// The stream of one stage.
#[derive(Debug, Clone)]
pub(crate) struct Traffic {
    pub(crate) seed: u64,
    pub(crate) users: u64,
    /// New calls in a batch.
    pub(crate) batch: u64,
    /// Of a hundred calls, how many more come a second time.
    pub(crate) duplicates: u64,
    /// About when, in milliseconds.
    pub(crate) start: i64,
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) user: u64,
    pub(crate) at: i64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// `Seen`, worth so much, by the user, its device, or both.
    Seen { worth: u64, by_user: bool, device: Option<u64> },
    /// Who it is, on that device, and for some the plan they have.
    Identify { device: u64, is_pro: Option<bool> },
    /// Which account it belongs to.
    Group,
}

/// What must be true of a user when all is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) seen: u64,
    pub(crate) total: u64,
    /// When and what was worth how much last.
    pub(crate) last: Option<(i64, u64, u64)>,
    /// When it last said what plan it has, and whether it is `pro`.
    pub(crate) plan: Option<(i64, u64, bool)>,
}

impl Traffic {
    fn hash(&self, number: u64, of: u64) -> u64 {
        xxh3_64_with_seed(&number.to_le_bytes(), self.seed.wrapping_mul(31) + of)
    }

    /// The call of that number.
    pub(crate) fn call(&self, n: u64) -> Call {
        let (session, place) = (n / SESSION, n % SESSION);
        let user = self.hash(session, 1) % self.users;
        let device = self.hash(session, 2) % DEVICES;
        let dice = self.hash(n, 3);
        let late = match dice % 1_000 {
            0 => 0,
            1 => 400 * 24 * 60 * MINUTE,
            _ => ((dice >> 10) % (LATE_MINUTES * 60_000)) as i64,
        };
        let is_known = user.is_multiple_of(4);
        let what = match place {
            3 => {
                let says = (is_known && session.is_multiple_of(16)).then_some(dice >> 20 & 1 == 0);
                What::Identify { device, is_pro: says }
            }
            5 if session.is_multiple_of(16) => What::Group,
            _ => {
                let by_user = is_known || dice >> 21 & 1 == 0;
                let device = (!by_user || dice >> 22 & 1 == 0).then_some(device);
                What::Seen { worth: (dice >> 30) % 100, by_user, device }
            }
        };
        Call { user, at: self.start - late, what }
    }

    /// The numbers of a batch's calls, those that come again among them.
    fn numbers(&self, batch: u64) -> Vec<u64> {
        let first = batch * self.batch;
        let mut numbers: Vec<u64> = (first..first + self.batch).collect();
        let again = (0..self.batch).filter(|i| self.hash(first + i, 4) % 100 < self.duplicates);
        // Of this batch, of the one before, and of any before.
        let again = again.map(|i| match i % 3 {
            0 => first + i,
            1 => (first + i).saturating_sub(self.batch),
            _ => self.hash(first + i, 5) % (first + self.batch),
        });
        let again: Vec<u64> = again.collect();
        numbers.extend(again);
        numbers.sort_by_key(|n| self.hash(*n, 6));
        numbers
    }

    /// The body of a batch, and how many calls are in it. Now and then one is among them that cannot be taken.
    pub(crate) fn body(&self, batch: u64) -> (String, u64) {
        let numbers = self.numbers(batch);
        let mut body = String::with_capacity(numbers.len() * 160);
        body.push_str(r#"{"batch":["#);
        if batch.is_multiple_of(20) {
            let _ = write!(body, r#"{{"type":"track","event":"Seen","messageId":"bad{batch}"}},"#);
        }
        for n in &numbers {
            self.write(&mut body, *n);
            body.push(',');
        }
        body.pop();
        body.push_str("]}");
        (body, numbers.len() as u64)
    }

    fn write(&self, body: &mut String, n: u64) {
        let Call { user, at, what } = self.call(n);
        let at = personas::domain::Timestamp::from_millis(at);
        let _ = write!(body, r#"{{"messageId":"m{n}","timestamp":"{at}","#);
        let _ = match what {
            What::Seen { worth, by_user, device } => {
                if by_user {
                    let _ = write!(body, r#""userId":"u{user}","#);
                }
                if let Some(device) = device {
                    let _ = write!(body, r#""anonymousId":"a{user}-{device}","#);
                }
                write!(body, r#""type":"track","event":"Seen","properties":{{"worth":{worth}}}}}"#)
            }
            What::Identify { device, is_pro } => {
                let plan = match is_pro {
                    Some(true) => r#","traits":{"plan":"pro"}"#,
                    Some(false) => r#","traits":{"plan":"free"}"#,
                    None => "",
                };
                write!(
                    body,
                    r#""type":"identify","userId":"u{user}","anonymousId":"a{user}-{device}"{plan}}}"#
                )
            }
            What::Group => {
                write!(body, r#""type":"group","userId":"u{user}","groupId":"g{}"}}"#, user / ACCOUNT)
            }
        };
    }

    /// Bodies that link whatever device no identify call has linked.
    pub(crate) fn links(&self) -> Vec<String> {
        let all: Vec<(u64, u64)> =
            (0..self.users).flat_map(|user| (0..DEVICES).map(move |d| (user, d))).collect();
        let body = |some: &[(u64, u64)]| {
            let call = |(user, device): &(u64, u64)| {
                format!(
                    r#"{{"type":"identify","messageId":"l{user}-{device}","userId":"u{user}","anonymousId":"a{user}-{device}"}}"#
                )
            };
            format!(r#"{{"batch":[{}]}}"#, some.iter().map(call).collect::<Vec<_>>().join(","))
        };
        all.chunks(400).map(body).collect()
    }

    /// How many calls [`Self::links`] has.
    pub(crate) const fn link_count(&self) -> u64 {
        self.users * DEVICES
    }

    /// What so many batches make of each user.
    pub(crate) fn expected(&self, batches: u64) -> Vec<Expected> {
        let mut users = vec![Expected::default(); self.users as usize];
        for n in 0..batches * self.batch {
            let Call { user, at, what } = self.call(n);
            let user = &mut users[user as usize];
            match what {
                What::Seen { worth, .. } => {
                    user.seen += 1;
                    user.total += worth;
                    // Calls of one user at one instant would be told apart by their ids, as text.
                    let tied =
                        user.last.is_some_and(|(last, m, _)| at == last && format!("m{n}") < format!("m{m}"));
                    if !tied && user.last.is_none_or(|(last, ..)| at >= last) {
                        user.last = Some((at, n, worth));
                    }
                }
                What::Identify { is_pro: Some(is_pro), .. } => {
                    let tied =
                        user.plan.is_some_and(|(last, m, _)| at == last && format!("m{n}") < format!("m{m}"));
                    if !tied && user.plan.is_none_or(|(last, ..)| at >= last) {
                        user.plan = Some((at, n, is_pro));
                    }
                }
                What::Identify { .. } | What::Group => {}
            }
        }
        users
    }
}

#[test]
fn a_number_gives_one_call_and_a_batch_its_own_calls_and_some_again() {
    let traffic = Traffic { seed: 7, users: 20, batch: 200, duplicates: 20, start: 1_709_294_400_000 };
    assert_eq!(traffic.call(3), traffic.call(3));
    let numbers = traffic.numbers(5);
    assert!((1_000..1_200).all(|n| numbers.contains(&n)));
    assert!(numbers.iter().any(|n| *n < 1_000) && numbers.len() > 220 && numbers.len() < 260);
    let (body, count) = traffic.body(20);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["batch"].as_array().unwrap().len() as u64, count + 1, "one that cannot be taken");
    let expected = traffic.expected(5);
    let seen = (0..1_000).filter(|n| matches!(traffic.call(*n).what, What::Seen { .. })).count() as u64;
    assert_eq!(expected.iter().map(|user| user.seen).sum::<u64>(), seen);
}
