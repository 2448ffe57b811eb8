//! `random_bucket('salt')`: a number from 0 to below 1 that each profile has for ever, spread evenly over profiles.

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::{Number, Value};

/// Buckets have so many decimals.
const DECIMALS: i32 = 9;

/// The bucket of a profile: XXH3-64 over the salt in UTF-8, a zero byte and the 16 bytes of the profile's id, as a share
/// of 2^64, cut to nine decimals. Other salts give other, independent buckets.
pub(super) fn bucket(salt: &str, profile: Uuid) -> Value {
    let mut bytes = Vec::with_capacity(salt.len() + 17);
    bytes.extend_from_slice(salt.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(profile.as_bytes());
    let share = (u128::from(xxh3_64(&bytes)) * 10_u128.pow(DECIMALS.unsigned_abs())) >> 64;
    Value::Number(Number::from_parts(share as i128, -DECIMALS).unwrap_or(Number::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_spread_evenly_and_independently_and_never_change() {
        let tenth = Value::Number(Number::parse("0.1").expect("number"));
        let (mut one, mut both) = (0, 0);
        for n in 0..20_000_u128 {
            let [a, b] = ["a", "b"].map(|salt| bucket(salt, Uuid::from_u128(n)) < tenth);
            one += usize::from(a);
            both += usize::from(a && b);
        }
        assert!((1_900..2_100).contains(&one), "{one}");
        assert!((150..250).contains(&both), "{both}");
        // Stored outcomes rest on these.
        let known = [("a", 1), ("a", 2), ("experiment 7", 1)];
        let known = known.map(|(salt, id)| bucket(salt, Uuid::from_u128(id)).to_json());
        assert_eq!(known, ["0.376420922", "0.417997962", "0.30690303"]);
    }
}
