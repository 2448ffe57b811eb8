//! Public ids of profiles: which event made them, and when it came.

use uuid::Uuid;

use crate::domain::{Collection, Offset, Timestamp};

/// What is in an id is stirred by an odd factor modulo 2^56, so that ids of neighbours do not look alike.
const STIR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Its inverse, by Newton's iteration: each step doubles the number of right bits.
const UNSTIR: u64 = {
    let (mut inverse, mut step) = (STIR, 0);
    while step < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(STIR.wrapping_mul(inverse)));
        step += 1;
    }
    inverse
};
const BITS: u64 = (1 << 56) - 1;

/// The public id of a profile: a UUIDv7 of the time of receipt of the event that made it, whose random bits hold the place of
/// that event in the log. The same log gives the same ids, whatever else there is in it and by whichever settings it is
/// resolved: numbers are given one after the other, ids are not.
pub fn profile_id(collection: Collection, born: Offset, received_at: Timestamp) -> Uuid {
    // An event makes a user and an account at most.
    let place = born.0 << 1 | u64::from(collection == Collection::Accounts);
    let stirred = place.wrapping_mul(STIR) & BITS;
    let mut bytes = [0x2a; 10];
    for (to, from) in bytes.iter_mut().skip(3).zip(stirred.to_be_bytes().into_iter().skip(1)) {
        *to = from;
    }
    uuid::Builder::from_unix_timestamp_millis(received_at.millis().max(0).unsigned_abs(), &bytes).into_uuid()
}

/// The event that made the profile with this public id.
pub(super) const fn birth_of(id: Uuid) -> Offset {
    Offset((((id.as_u128() as u64) & BITS).wrapping_mul(UNSTIR) & BITS) >> 1)
}
