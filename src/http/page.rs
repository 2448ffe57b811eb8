//! Lists: `{"data":[…],"cursor":{"has_more","next","limit","url"}}`, paged by opaque cursors.
//!
//! A cursor says where the next page begins (a key, never an offset), which list it belongs to, and its version, so
//! that one of another list or of an older release is refused instead of misread.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::Query;
use super::problem::{Code, Problem};

/// Rows when the client does not say.
pub const LIMIT_DEFAULT: usize = 100;
/// Rows at most.
pub const LIMIT_MAX: usize = 1_000;
/// Raised when what cursors hold changes its meaning.
const CURSOR_VERSION: u8 = 1;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Where to go on.
    pub cursor: Cursor,
}

/// Where a list goes on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cursor {
    /// Whether there are more rows.
    pub has_more: bool,
    /// What to pass as `cursor` (in the Profile API as `next`) for the next page; empty on the last one.
    pub next: String,
    /// Rows at most in a page.
    pub limit: usize,
    /// The path of the list.
    pub url: String,
}

/// `limit` and `cursor` of a request; `next` is the Profile API's name for the cursor.
#[derive(Debug, Clone)]
pub struct Page<const DEFAULT: usize = LIMIT_DEFAULT, const MAX: usize = LIMIT_MAX> {
    /// Rows at most in this page.
    pub limit: usize,
    cursor: Option<String>,
    url: String,
}

/// The parameters of a list, for its description.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Rows at most in a page: 100 when not given, at most 1,000; in the lists of one profile 10 or 20, at most 200.
    limit: Option<usize>,
    /// `cursor.next` of the page before.
    cursor: Option<String>,
    /// As `cursor`, by Segment's name.
    next: Option<String>,
}

impl<S: Sync, const DEFAULT: usize, const MAX: usize> FromRequestParts<S> for Page<DEFAULT, MAX> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(PageParams { limit, cursor, next }) = Query::from_request_parts(parts, state).await?;
        let limit = limit.unwrap_or(DEFAULT);
        if !(1..=MAX).contains(&limit) {
            let message = format!("limit is {limit}; it must be from 1 to {MAX}");
            return Err(Problem::new(Code::BadRequest, message).at("limit"));
        }
        let cursor = cursor.or(next).filter(|text| !text.is_empty());
        Ok(Self { limit, cursor, url: parts.uri.path().to_owned() })
    }
}

impl<const DEFAULT: usize, const MAX: usize> Page<DEFAULT, MAX> {
    /// Where this page of `list` begins: the key given to [`Page::list`] for the page before.
    pub fn after<K: DeserializeOwned>(&self, list: &str) -> Result<Option<K>, Problem> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let invalid =
            || Problem::new(Code::InvalidCursor, "take the cursor from the list before").at("cursor");
        let json = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let (version, name, key): (u8, String, K) = serde_json::from_slice(&json).map_err(|_| invalid())?;
        if version == CURSOR_VERSION && name == list { Ok(Some(key)) } else { Err(invalid()) }
    }

    /// Makes the page of `list` from up to `limit + 1` rows: the one too many says that there are more. `key` is
    /// where the next page begins, told from the last row of this one.
    pub fn list<R, T, K: Serialize>(
        &self,
        list: &str,
        mut rows: Vec<R>,
        key: impl FnOnce(&R) -> K,
        show: impl FnMut(R) -> T,
    ) -> List<T> {
        let has_more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let last = if has_more { rows.last() } else { None };
        let next = last.map(|row| encode(list, &key(row))).unwrap_or_default();
        List {
            data: rows.into_iter().map(show).collect(),
            cursor: Cursor { has_more, next, limit: self.limit, url: self.url.clone() },
        }
    }
}

fn encode<K: Serialize>(list: &str, key: &K) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(super::problem::to_json(&(CURSOR_VERSION, list, key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: usize, cursor: Option<String>) -> Page {
        Page { limit, cursor, url: "/v1/things".to_owned() }
    }

    #[test]
    fn pages_follow_one_another() {
        let first = page(2, None).list("things", vec![1, 2, 3], |row| *row, |row| row * 10);
        assert_eq!(first.data, [10, 20]);
        assert!(first.cursor.has_more);
        let second = page(2, Some(first.cursor.next));
        assert_eq!(second.after::<i32>("things").unwrap(), Some(2));
        let second = second.list("things", vec![3], |row| *row, |row| row * 10);
        assert!(!second.cursor.has_more && second.cursor.next.is_empty());
    }

    #[test]
    fn foreign_cursors_are_refused() {
        let cursor = encode("things", &7);
        for (list, cursor) in
            [("others", cursor.as_str()), ("things", "x"), ("things", ""), ("things", "bnVsbA")]
        {
            let after = page(1, Some(cursor.to_owned())).after::<i32>(list);
            assert_eq!(after.err().map(|p| p.code), Some(Code::InvalidCursor), "{list} {cursor}");
        }
        assert!(page(1, Some(cursor)).after::<String>("things").is_err(), "another kind of key");
    }
}
