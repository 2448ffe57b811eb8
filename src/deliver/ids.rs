//! Names of deliveries: `dlv_…`, the same over all attempts and replays, and different for every change, destination and
//! server.
//!
//! A UUIDv7 of when the change happened; in its random part are the number of the delivery, so that it can be found, and a
//! hash of it and the destination, so that it cannot be taken for another one.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::ids::{parse_public_id, public_id};

const PREFIX: &str = "dlv";
/// Bytes of the number: a million millions of each destination.
const NUMBER_BYTES: usize = 5;

/// The name of a delivery.
pub fn delivery_id(destination: Uuid, no: i64, at: Timestamp) -> String {
    public_id(PREFIX, uuid(destination, no, at))
}

/// The number in a name, if it is one. Whether it belongs to a delivery is seen when its name is made.
pub fn delivery_no(id: &str) -> Option<i64> {
    let bytes = parse_public_id(PREFIX, id)?.into_bytes();
    let number = bytes.iter().skip(16 - NUMBER_BYTES).fold(0_i64, |no, byte| no << 8 | i64::from(*byte));
    Some(number)
}

fn uuid(destination: Uuid, no: i64, at: Timestamp) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(destination.as_bytes());
    hash.update(no.to_be_bytes());
    let hash = hash.finalize();
    let number = no.to_be_bytes();
    let mut bytes = [0; 10];
    let random = hash.iter().take(10 - NUMBER_BYTES).chain(number.iter().skip(8 - NUMBER_BYTES));
    for (to, from) in bytes.iter_mut().zip(random) {
        *to = *from;
    }
    uuid::Builder::from_unix_timestamp_millis(at.millis().max(0).unsigned_abs(), &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_its_number() {
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let at = Timestamp::from_millis(1_700_000_000_000);
        for no in [1, 255, 256, 1_000_000, (1 << 40) - 1] {
            let id = delivery_id(one, no, at);
            assert!(id.starts_with("dlv_018bcfe56800"), "{id}");
            assert_eq!(delivery_no(&id), Some(no), "{id}");
            assert_ne!(id, delivery_id(two, no, at));
            assert_eq!(id, delivery_id(one, no, at));
        }
        assert_eq!(delivery_no("dlv_x"), None);
    }
}
