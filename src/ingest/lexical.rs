//! What JSON parsers let through and Postgres or people choke on (decisions T11), settled in one pass over the
//! text: depth, absurd numbers, U+0000, lone surrogates; and, for bodies that do not parse, bare NaN and Infinity.

use std::borrow::Cow;

use memchr::{memchr2, memmem};

/// Most digits a number may have.
const DIGITS_MAX: usize = 40;
/// Largest magnitude of an exponent.
const EXPONENT_MAX: u32 = 308;

/// What one pass over valid JSON found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Scan {
    /// Deepest nesting of objects and arrays.
    pub depth: usize,
    /// A number has more digits or a larger exponent than we take.
    pub number_out_of_range: bool,
}

/// Looks at `json`, which must be valid JSON, without changing it.
pub(crate) fn scan(json: &str) -> Scan {
    let bytes = json.as_bytes();
    let (mut found, mut depth, mut at) = (Scan::default(), 0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'{' | b'[' => {
                depth += 1;
                found.depth = found.depth.max(depth);
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let length = number_length(&bytes[at..]);
                found.number_out_of_range |= is_out_of_range(&bytes[at..at + length]);
                at += length;
            }
            _ => at += 1,
        }
    }
    found
}

/// Index behind the closing quote of the string that starts at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(step) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += step;
        if bytes.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    bytes.len()
}

fn number_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|b| !matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
        .unwrap_or(bytes.len())
}

fn is_out_of_range(number: &[u8]) -> bool {
    let split = number.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(number.len());
    let digits = number[..split].iter().filter(|b| b.is_ascii_digit()).count();
    let exponent = number.get(split + 1..).unwrap_or_default();
    let magnitude = exponent
        .iter()
        .filter(|b| b.is_ascii_digit())
        .fold(0_u32, |sum, b| sum.saturating_mul(10).saturating_add(u32::from(b - b'0')));
    digits > DIGITS_MAX || magnitude > EXPONENT_MAX
}

/// Removes `\u0000` and turns lone surrogates into U+FFFD; everything else, valid pairs and `\\u0000` (an escaped
/// backslash) included, stays byte for byte.
pub(crate) fn mend(json: &str) -> Cow<'_, str> {
    if memmem::find(json.as_bytes(), b"\\u").is_none() {
        return Cow::Borrowed(json);
    }
    let (mut out, mut rest) = (String::with_capacity(json.len()), json);
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (kept, used) = mend_escape(escape);
        out.push_str(kept);
        rest = &escape[used..];
    }
    out.push_str(rest);
    if out == json { Cow::Borrowed(json) } else { Cow::Owned(out) }
}

/// What to write for the escape at the start of `text`, and how many bytes of `text` that replaces.
fn mend_escape(text: &str) -> (&str, usize) {
    let Some(code) = unicode_escape(text) else {
        // Any other escape is two bytes; an escaped character is ASCII in valid JSON.
        let length = text.chars().take(2).map(char::len_utf8).sum();
        return (&text[..length], length);
    };
    match code {
        0 => ("", 6),
        0xd800..=0xdbff => match text.get(6..).and_then(unicode_escape) {
            Some(0xdc00..=0xdfff) => (&text[..12], 12),
            _ => ("\\ufffd", 6),
        },
        0xdc00..=0xdfff => ("\\ufffd", 6),
        _ => (&text[..6], 6),
    }
}

fn unicode_escape(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// The tolerant pass for a body that does not parse: bare `NaN`, `Infinity` and `-Infinity` become null, a byte
/// order mark goes, and escapes are mended. Only worth its cost after a failed parse.
pub(crate) fn tolerate(body: &str) -> String {
    let body = mend(body.trim_start_matches('\u{feff}'));
    let bytes = body.as_bytes();
    let (mut out, mut copied, mut at) = (String::with_capacity(body.len()), 0, 0);
    while let Some(&byte) = bytes.get(at) {
        if byte == b'"' {
            at = end_of_string(bytes, at + 1);
            continue;
        }
        let token =
            ["NaN", "Infinity", "-Infinity"].into_iter().find(|t| bytes[at..].starts_with(t.as_bytes()));
        if let Some(token) = token {
            out.push_str(&body[copied..at]);
            out.push_str("null");
            at += token.len();
            copied = at;
        } else {
            at += 1;
        }
    }
    out.push_str(&body[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_beyond_reason_are_found() {
        for bad in ["1e400", "1e131071", "-1E-309", &"9".repeat(41), "[{\"a\":1e999}]"] {
            assert!(scan(bad).number_out_of_range, "{bad}");
        }
        for good in ["1e308", "18446744073709551616", "-0.1", "\"1e400\"", "{\"1e400\":0}", &"9".repeat(40)] {
            assert!(!scan(good).number_out_of_range, "{good}");
        }
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert_eq!(scan(r#"{"a":[[]],"b":"[[[["}"#).depth, 3);
        assert_eq!(scan("1").depth, 0);
    }

    #[test]
    fn escapes_are_mended_and_nothing_else() {
        for (json, expected) in [
            (r#""x\u0000y""#, r#""xy""#),
            (r#""x\\u0000y""#, r#""x\\u0000y""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83dx\u00e9\n""#, r#""\ufffdx\u00e9\n""#),
        ] {
            assert_eq!(mend(json), expected);
        }
    }

    #[test]
    fn bare_words_of_python_become_null() {
        let body = r#"{"a":NaN,"b":[-Infinity,Infinity],"c":"NaN \" Infinity"}"#;
        assert_eq!(tolerate(body), r#"{"a":null,"b":[null,null],"c":"NaN \" Infinity"}"#);
    }

    proptest! {
        #[test]
        fn mended_json_always_parses(json in r#""([a-z]|\\u[0d][08c][0-9a-f]{2}|\\\\|\\n){0,12}""#) {
            prop_assert!(serde_json::from_str::<String>(&mend(&json)).is_ok(), "{}", json);
        }

        #[test]
        fn any_text_is_survived(text in "[\\\\\"u0-9a-fdD{}\\[\\],:NaIinfty é-]{0,60}") {
            let _scan = scan(&text);
            let _text = tolerate(&text);
        }
    }
}
