//! Numbers and ids. Inside the service things are dense numbers per space; in JSON they are prefixed UUIDs.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A space: the tenant and its identity graph. First column of every key.
    SpaceNo, i32
);
number!(
    /// A source of a space.
    SourceNo, i32
);
number!(
    /// A profile's dense number within its space, given in order of creation from 1; 0 is nobody.
    ProfileNo, u64
);
number!(
    /// Position of an event in its space's log, dense from 1. Commit order is log order.
    Offset, u64
);
number!(
    /// A version of an audience or computed trait, unique in its space.
    ComputationNo, u32
);
number!(
    /// A destination of a space.
    DestinationNo, i32
);
number!(
    /// An interned leaf: one incremental state shared by all definitions of a space that need it.
    LeafNo, u32
);

/// Writes a UUID as JSON clients see it: a type prefix and 32 hexadecimal digits (`prf_018f…`).
pub fn public_id(prefix: &str, id: Uuid) -> String {
    format!("{prefix}_{}", id.simple())
}

/// Reads an id written by [`public_id`]; `None` when the prefix or the digits are not right.
pub fn parse_public_id(prefix: &str, text: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix)?.strip_prefix('_')?;
    Uuid::try_parse(digits).ok()
}
