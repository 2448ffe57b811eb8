//! Names of tables and columns that follow from what customers call things, as Segment's warehouses make them: snake case,
//! with `_` before what begins with a digit, is a word of SQL, or is taken by a column or table of ours. What is longer than
//! Postgres allows is cut and ends in a hash of the whole. Pure.

use heck::ToSnakeCase;
use sha2::{Digest, Sha256};

/// Bytes of a name in Postgres.
const NAME_BYTES_MAX: usize = 63;
/// Hex digits of the hash at the end of what was cut.
const HASH_DIGITS: usize = 8;

/// Words that Postgres reserves, and columns that every table of it has.
const WORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "cmax",
    "cmin",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "ctid",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "tableoid",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmax",
    "xmin",
];

/// The name of what is reached by these keys, one inside the other, where these names are taken.
pub(super) fn name(keys: &[&str], is_taken: impl Fn(&str) -> bool) -> String {
    let parts = keys.iter().map(|key| key.to_snake_case()).filter(|part| !part.is_empty());
    let mut name = parts.collect::<Vec<_>>().join("_");
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || WORDS.contains(&name.as_str()) {
        name.insert(0, '_');
    }
    while is_taken(&name) {
        name.insert(0, '_');
    }
    // Of nothing but signs, each is another name.
    let is_bare = name.bytes().all(|b| b == b'_');
    if name.len() <= NAME_BYTES_MAX && !is_bare {
        return name;
    }
    let mut end = name.len().min(NAME_BYTES_MAX - HASH_DIGITS - 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    let hash: String = hex::encode(Sha256::digest(keys.join("\0"))).chars().take(HASH_DIGITS).collect();
    format!("{}_{hash}", name.trim_end_matches('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_segments_warehouses_make_of_them() {
        let plain = |keys: &[&str]| name(keys, |name| name == "id");
        for (keys, expected) in [
            (&["Order Completed"][..], "order_completed"),
            (&["productID"], "product_id"),
            (&["page", "URL"], "page_url"),
            (&["3d view"], "_3d_view"),
            (&["Group"], "_group"),
            (&["id"], "_id"),
            (&["größe"], "größe"),
            (&["a.b-c"], "a_b_c"),
            (&["ctid"], "_ctid"),
        ] {
            assert_eq!(plain(keys), expected);
        }
    }

    #[test]
    fn what_is_too_long_or_has_no_letters_is_told_apart() {
        let plain = |key: &str| name(&[key], |_| false);
        let long = |end: &str| plain(&format!("{}{end}", "ä".repeat(60)));
        assert_ne!(long("a"), long("b"));
        for made in [long("a"), long("b"), plain("!!"), plain("??"), plain(&"x".repeat(64))] {
            assert!((2..=63).contains(&made.len()), "{made}");
        }
        assert_ne!(plain("!!"), plain("??"));
        assert_eq!(plain(&"x".repeat(63)).len(), 63);
    }
}
