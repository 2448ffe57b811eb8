//! Filter text → tokens with the bytes where they begin.

use serde_json::Value;

use super::ast::{KEYWORDS, is_plain};
use super::error::FqlError;

/// A word of a filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `and`, `or`, `in`.
    Keyword(&'static str),
    /// A field: the keys that lead to it. Whether it is one word without escapes, so possibly a function.
    Path(Vec<String>, bool),
    /// A string, number, boolean or null.
    Literal(Value),
    /// Punctuation or an operator.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

/// Longest first, so that `>=` is not read as `>`.
const SYMBOLS: [&str; 12] = ["!=", ">=", "<=", "=", ">", "<", "!", "(", ")", "[", "]", ","];

/// What a character that is no part of the language was probably meant to be.
const MEANT: [(char, &str); 7] = [
    ('&', "; did you mean `and`?"),
    ('|', "; did you mean `or`?"),
    ('‘', "; strings are written in straight quotes"),
    ('’', "; strings are written in straight quotes"),
    ('“', "; strings are written in straight quotes"),
    ('”', "; strings are written in straight quotes"),
    ('.', "; a field has no space around its dots"),
];

/// Splits the text. The last token is always [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, FqlError> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (token, length) =
            token(rest, first).map_err(|(offset, message)| FqlError::at(text, at + offset, message))?;
        found.push((token, at));
        at += length;
    }
    found.push((Token::End, text.len()));
    Ok(found)
}

/// The token at the start of `rest` and its length, or what is wrong and how far in.
fn token(rest: &str, first: char) -> Result<(Token, usize), (usize, String)> {
    if first == '\'' || first == '"' {
        return string(rest, first)
            .ok_or_else(|| (0, format!("this string has no end; it ends with {first}")));
    }
    if rest.strip_prefix('-').unwrap_or(rest).starts_with(|c: char| c.is_ascii_digit()) {
        return number(rest);
    }
    if first.is_alphabetic() || first == '_' || first == '\\' {
        return path(rest);
    }
    if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
        return Ok((Token::Symbol(symbol), symbol.len()));
    }
    let hint = MEANT.iter().find(|(c, _)| *c == first).map_or(
        "; a character of a field's name that is no letter, digit, `_` or `-` is escaped with `\\`",
        |(_, hint)| hint,
    );
    Err((0, format!("unexpected character `{first}`{hint}")))
}

/// A string up to the same quote. `\` escapes quotes and itself; before anything else it stays, for `match`.
fn string(rest: &str, quote: char) -> Option<(Token, usize)> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Some((Token::Literal(Value::String(value)), at + 1));
        }
        if c == '\\' {
            let (_, escaped) = chars.next()?;
            if !matches!(escaped, '\'' | '"' | '\\') {
                value.push(c);
            }
            value.push(escaped);
        } else {
            value.push(c);
        }
    }
    None
}

fn number(rest: &str) -> Result<(Token, usize), (usize, String)> {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let mut length = usize::from(bytes.first() == Some(&b'-'));
    length += digits(length);
    if bytes.get(length) == Some(&b'.') && digits(length + 1) > 0 {
        length += 1 + digits(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        length += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    let text = rest.get(..length).unwrap_or_default();
    if rest
        .get(length..)
        .is_some_and(|after| after.starts_with(|c: char| is_plain(c) || c == '.' || c == '\\'))
    {
        return Err((
            0,
            format!(
                "`{text}` is followed by more; a field whose name begins with a digit is written `\\{text}…`"
            ),
        ));
    }
    let is_whole = !text.contains(['.', 'e', 'E']);
    let read = serde_json::from_str::<Value>(text).ok();
    // The nearest f64, which reads back from its own digits; the JSON parser may be one off.
    let exact = || text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number);
    match read.and_then(|value| if is_whole { Some(value) } else { exact() }) {
        Some(value) => Ok((Token::Literal(value), length)),
        None => Err((0, format!("`{text}` is no number that can be compared; write it as JSON does"))),
    }
}

fn path(rest: &str) -> Result<(Token, usize), (usize, String)> {
    let mut keys = vec![String::new()];
    let mut is_plain_word = true;
    let mut length = rest.len();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        let Some(key) = keys.last_mut() else { break };
        if c == '\\' {
            let Some((_, escaped)) = chars.next() else {
                return Err((at, "`\\` stands at the end; it escapes the next character".to_owned()));
            };
            key.push(escaped);
            is_plain_word = false;
        } else if c == '.' {
            if key.is_empty() {
                return Err((at, "a field's name is missing before this dot".to_owned()));
            }
            keys.push(String::new());
            is_plain_word = false;
        } else if is_plain(c) {
            key.push(c);
        } else {
            length = at;
            break;
        }
    }
    if keys.last().is_some_and(String::is_empty) {
        return Err((length, "a field's name is missing after the dot".to_owned()));
    }
    Ok((word(keys, is_plain_word), length))
}

fn word(keys: Vec<String>, is_plain_word: bool) -> Token {
    let first = keys.first().map_or("", String::as_str);
    if !is_plain_word {
        return Token::Path(keys, false);
    }
    match first {
        "true" => Token::Literal(Value::Bool(true)),
        "false" => Token::Literal(Value::Bool(false)),
        "null" => Token::Literal(Value::Null),
        _ => match KEYWORDS.into_iter().find(|keyword| *keyword == first) {
            Some(keyword) => Token::Keyword(keyword),
            None => Token::Path(keys, true),
        },
    }
}
