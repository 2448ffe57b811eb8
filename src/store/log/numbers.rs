//! What became of the events of a chunk, a few bytes each: to whom they were attributed, or that they are duplicates.

use super::codec::Damaged;
use crate::domain::ProfileNo;
use crate::domain::varint::{get_varint, put_varint};

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Kept in the log, but nobody's: not to be profiled, or without a usable identifier.
    Nobodys,
    /// Its message id had been seen before: it does not count.
    Duplicate,
    /// Attributed to a user, an account, or both, by the numbers of that time.
    Attributed {
        /// The user.
        user: Option<ProfileNo>,
        /// The account.
        account: Option<ProfileNo>,
    },
}

impl Fate {
    /// Appends it to `out`.
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Nobodys => put_varint(out, 0),
            Self::Duplicate => put_varint(out, 1),
            Self::Attributed { user, account } => {
                let user = user.map_or(0, |no| no.0);
                put_varint(out, 2 + (user << 1 | u64::from(account.is_some())));
                if let Some(account) = account {
                    put_varint(out, account.0);
                }
            }
        }
    }

    /// Reads the fates of a whole chunk.
    pub fn decode_all(mut bytes: &[u8]) -> Result<Vec<Self>, Damaged> {
        let mut fates = Vec::new();
        while !bytes.is_empty() {
            let mut next = || get_varint(&mut bytes).ok_or(Damaged("cut short"));
            fates.push(match next()? {
                0 => Self::Nobodys,
                1 => Self::Duplicate,
                code => {
                    let code = code - 2;
                    let account = if code & 1 == 1 { Some(ProfileNo(next()?)) } else { None };
                    let user = Some(ProfileNo(code >> 1)).filter(|no| no.0 != 0);
                    Self::Attributed { user, account }
                }
            });
        }
        Ok(fates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fates_are_read_back(list in proptest::collection::vec((0_u8..3, 0_u64..1 << 50, 0_u64..1 << 50), 0..50)) {
            let some = |n: u64| Some(ProfileNo(n)).filter(|no| no.0 != 0);
            let fates: Vec<Fate> = list.iter().map(|(kind, user, account)| match kind {
                0 => Fate::Nobodys,
                1 => Fate::Duplicate,
                _ => Fate::Attributed { user: some(*user), account: some(*account) },
            }).collect();
            let mut bytes = Vec::new();
            for fate in &fates {
                fate.encode(&mut bytes);
            }
            prop_assert_eq!(Fate::decode_all(&bytes).unwrap(), fates);
        }
    }
}
