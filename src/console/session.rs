//! Who is signed in: tokens in memory, behind random ids that only a cookie knows.
//!
//! A token never leaves the process: the browser has the id of a session and nothing that the API would take. A session ends
//! when its operator signs out, an hour after it was last used, twelve hours after it began, when the API does not take its
//! token any more, and with the process.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::clock::{Clock, IdMaker};
use crate::config::Secret;
use crate::domain::Timestamp;

/// Longest pause between two pages, in milliseconds.
const IDLE_MS: i64 = 60 * 60 * 1_000;
/// Longest session, in milliseconds.
const LIFE_MS: i64 = 12 * 60 * 60 * 1_000;
/// Sessions at the same time; past that the one that was used least lately ends.
const SESSIONS_MAX: usize = 1_000;
/// The same of one token: whoever has it signs nobody else out.
const OF_TOKEN_MAX: usize = 20;

/// The hash of a session's id: what is in memory is of no use as a cookie.
pub(super) type Key = [u8; 32];

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// The token, for the API only.
    pub token: Secret,
    /// What a form has to bring along to be one of ours.
    pub form_key: Secret,
    began_at: Timestamp,
    used_at: Timestamp,
}

impl Session {
    fn is_over(&self, now: Timestamp) -> bool {
        now.millis() - self.used_at.millis() >= IDLE_MS || now.millis() - self.began_at.millis() >= LIFE_MS
    }
}

/// All sessions of this process.
#[derive(Debug)]
pub(super) struct Sessions {
    clock: Clock,
    ids: IdMaker,
    open: Mutex<HashMap<Key, Session>>,
}

impl Sessions {
    pub(super) fn new(clock: Clock, ids: IdMaker) -> Self {
        Self { clock, ids, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session; returns its id, for the cookie.
    pub(super) fn open(&self, token: &str) -> String {
        let id = hex::encode(self.ids.bytes::<32>());
        let now = self.clock.now();
        let session = Session {
            token: Secret::new(token),
            form_key: Secret::new(hex::encode(self.ids.bytes::<32>())),
            began_at: now,
            used_at: now,
        };
        let mut open = self.lock();
        open.retain(|_, session| !session.is_over(now));
        let own = |session: &Session| session.token.expose() == token;
        if open.values().filter(|session| own(session)).count() >= OF_TOKEN_MAX {
            end_stalest(&mut open, own);
        }
        if open.len() >= SESSIONS_MAX {
            end_stalest(&mut open, |_| true);
        }
        open.insert(key_of(&id), session);
        id
    }

    /// The session of an id. Only what an operator does keeps it open: `is_use`.
    pub(super) fn find(&self, id: &str, is_use: bool) -> Option<(Key, Session)> {
        let (key, now) = (key_of(id), self.clock.now());
        let mut open = self.lock();
        let session = open.get_mut(&key)?;
        if session.is_over(now) {
            open.remove(&key);
            return None;
        }
        if is_use {
            session.used_at = now;
        }
        Some((key, session.clone()))
    }

    /// Ends a session.
    pub(super) fn close(&self, key: &Key) {
        self.lock().remove(key);
    }
}

/// Ends the session that was used least lately, of some.
fn end_stalest(open: &mut HashMap<Key, Session>, some: impl Fn(&Session) -> bool) {
    let of_some = open.iter().filter(|(_, session)| some(session));
    let stalest = of_some.min_by_key(|(_, session)| session.used_at).map(|(key, _)| *key);
    stalest.and_then(|key| open.remove(&key));
}

fn key_of(id: &str) -> Key {
    Sha256::digest(id.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_bounded_and_end_by_themselves() {
        let clock = Clock::test(Timestamp::from_millis(0));
        let sessions = Sessions::new(clock.clone(), IdMaker::new(clock.clone()));
        let first = sessions.open("tok_first");
        for n in 0..SESSIONS_MAX {
            clock.advance_to(Timestamp::from_millis(n as i64 + 1));
            sessions.open(&format!("tok_{n}"));
        }
        assert!(sessions.find(&first, true).is_none(), "the stalest makes room");
        let used = sessions.open("tok_used");
        let step = IDLE_MS / 2 + 1;
        let start = clock.now().millis();
        for n in 1..LIFE_MS / step {
            clock.advance_to(Timestamp::from_millis(start + n * step));
            assert_eq!(sessions.find(&used, true).unwrap().1.token.expose(), "tok_used");
        }
        assert_eq!(sessions.lock().len(), SESSIONS_MAX, "nobody has looked at the others");
        sessions.open("tok_new");
        assert_eq!(sessions.lock().len(), 2);
        clock.advance_to(Timestamp::from_millis(start + LIFE_MS));
        assert!(sessions.find(&used, true).is_none(), "however often it was used");
        let idle = sessions.open("tok_idle");
        clock.advance_to(Timestamp::from_millis(start + LIFE_MS + IDLE_MS - 1));
        assert!(sessions.find(&idle, false).is_some());
        clock.advance_to(Timestamp::from_millis(start + LIFE_MS + IDLE_MS));
        assert!(sessions.find(&idle, false).is_none(), "what pages ask for by themselves is no use");
        assert!(!format!("{sessions:?}").contains("tok_"));
    }

    #[test]
    fn who_signs_in_again_and_again_signs_nobody_else_out() {
        let clock = Clock::test(Timestamp::from_millis(0));
        let sessions = Sessions::new(clock.clone(), IdMaker::new(clock.clone()));
        let (other, first) = (sessions.open("tok_other"), sessions.open("tok_own"));
        for n in 1..=SESSIONS_MAX as i64 {
            clock.advance_to(Timestamp::from_millis(n));
            sessions.open("tok_own");
        }
        assert!(sessions.find(&other, false).is_some() && sessions.find(&first, false).is_none());
        assert_eq!(sessions.lock().len(), OF_TOKEN_MAX + 1);
    }
}
