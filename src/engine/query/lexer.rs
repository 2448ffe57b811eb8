//! Query text → tokens with spans. Never fails: what it cannot read becomes an error and the rest goes on.

use crate::domain::{Number, Timestamp};

use super::error::{ErrorKind, Errors, Span};

/// A word of the query.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or keyword, in lower case.
    Word(String),
    /// A string without its quotes and escapes.
    String(String),
    /// A number.
    Number(Number),
    /// A bare date or timestamp, as written.
    Date(String),
    /// Punctuation or an operator.
    Symbol(&'static str),
    /// The end of the text.
    End,
}

/// Longest first, so that `>=` is not read as `>`.
const SYMBOLS: [&str; 17] =
    ["&&", "||", "==", "!=", ">=", "<=", "=", ">", "<", "!", "(", ")", "[", "]", ",", ".", ":"];

/// A comment and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comment {
    /// The position of the token behind it.
    pub(super) before: usize,
    /// Without the hyphens and the space around it.
    pub(super) text: String,
}

/// Splits the text. The last token is always [`Token::End`].
pub(super) fn tokens(text: &str, errors: &mut Errors) -> Vec<(Token, Span)> {
    tokens_and_comments(text, errors).0
}

/// The same, with the comments.
pub(super) fn tokens_and_comments(text: &str, errors: &mut Errors) -> (Vec<(Token, Span)>, Vec<Comment>) {
    // Nor can what it is stored in: within a string, behind a `\`, in a comment.
    if let Some(offset) = text.find('\0') {
        errors.add(ErrorKind::Syntax, Span { offset, length: 1 }, "a definition cannot contain U+0000");
    }
    let mut lexer = Lexer { text, at: 0, errors, tokens: Vec::new(), comments: Vec::new() };
    while lexer.step() {}
    lexer.tokens.push((Token::End, Span::new(text.len(), text.len())));
    (lexer.tokens, lexer.comments)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    errors: &'a mut Errors,
    tokens: Vec<(Token, Span)>,
    comments: Vec<Comment>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn push(&mut self, token: Token, length: usize) {
        self.tokens.push((token, Span { offset: self.at, length }));
        self.at += length;
    }

    fn step(&mut self) -> bool {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return false };
        let signed = rest.strip_prefix('-').unwrap_or(rest);
        if first.is_whitespace() {
            self.at += first.len_utf8();
        } else if rest.starts_with("--") {
            let length = rest.find('\n').unwrap_or(rest.len());
            let text = rest.get(2..length).unwrap_or_default().trim().to_owned();
            self.comments.push(Comment { before: self.tokens.len(), text });
            self.at += length;
        } else if first == '\'' || first == '"' {
            self.string(first);
        } else if signed.starts_with(|c: char| c.is_ascii_digit()) {
            self.number_or_date();
        } else if first.is_alphabetic() || first == '_' {
            let length = run(rest, |c| c.is_alphanumeric() || c == '_');
            self.push(Token::Word(rest.get(..length).unwrap_or_default().to_lowercase()), length);
        } else if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            self.push(Token::Symbol(symbol), symbol.len());
        } else {
            let span = Span { offset: self.at, length: first.len_utf8() };
            let hint = match first {
                '‘' | '’' | '“' | '”' | '`' => "; strings are written in straight single quotes",
                '&' => "; did you mean `&&`?",
                '|' => "; did you mean `||`?",
                _ => "",
            };
            self.errors.add(ErrorKind::Syntax, span, format!("unexpected character `{first}`{hint}"));
            self.at += first.len_utf8();
        }
        true
    }

    fn string(&mut self, quote: char) {
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                if quote == '"' {
                    let span = Span { offset: self.at, length: at + 1 };
                    self.errors.add(ErrorKind::Syntax, span, "strings are written in single quotes");
                }
                return self.push(Token::String(value), at + 1);
            }
            match c {
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                _ => value.push(c),
            }
        }
        let length = self.rest().len();
        let span = Span { offset: self.at, length };
        self.errors.add_expecting(ErrorKind::Syntax, span, "this string has no end", &["'"]);
        self.push(Token::String(value), length);
    }

    fn number_or_date(&mut self) {
        let rest = self.rest();
        if let Some(length) = date_len(rest) {
            let text = rest.get(..length).unwrap_or_default();
            if Timestamp::parse(text).is_none() {
                let span = Span { offset: self.at, length };
                self.errors.add(ErrorKind::Syntax, span, format!("`{text}` is not a date or timestamp"));
            }
            return self.push(Token::Date(text.to_owned()), length);
        }
        let length = number_len(rest);
        let text = rest.get(..length).unwrap_or_default();
        let number = Number::parse(text).unwrap_or_else(|| {
            let span = Span { offset: self.at, length };
            self.errors.add(ErrorKind::Syntax, span, format!("`{text}` is too large or too small a number"));
            Number::ZERO
        });
        self.push(Token::Number(number), length);
    }
}

/// Bytes at the start of `text` whose characters are accepted.
fn run(text: &str, accept: impl Fn(char) -> bool) -> usize {
    text.find(|c: char| !accept(c)).unwrap_or(text.len())
}

/// Length of the digits at `at`.
fn digits(text: &str, at: usize) -> usize {
    run(text.get(at..).unwrap_or_default(), |c| c.is_ascii_digit())
}

/// Length of a number: digits, then a fraction and an exponent where a digit follows their sign.
fn number_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut length = usize::from(bytes.first() == Some(&b'-'));
    length += digits(text, length);
    if bytes.get(length) == Some(&b'.') {
        let fraction = digits(text, length + 1);
        length += if fraction > 0 { fraction + 1 } else { 0 };
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(text, length + 1 + sign);
        length += if exponent > 0 { exponent + 1 + sign } else { 0 };
    }
    length
}

/// Length of a bare `yyyy-mm-dd` or ISO 8601 timestamp, if the text starts with one.
fn date_len(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let shape = "dddd-dd-dd".bytes().zip(bytes);
    let is_date =
        bytes.len() >= 10 && shape.clone().all(|(s, b)| if s == b'd' { b.is_ascii_digit() } else { s == *b });
    if !is_date {
        return None;
    }
    if !matches!(bytes.get(10), Some(b'T' | b't')) {
        return Some(10 + digits(text, 10));
    }
    let mut length = 11;
    while let Some(byte) = bytes.get(length) {
        let inside = match byte {
            b'0'..=b'9' | b':' | b'Z' | b'z' | b'+' | b'-' => true,
            b'.' => digits(text, length + 1) > 0,
            _ => false,
        };
        if !inside {
            break;
        }
        length += 1;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(text: &str) -> (Vec<Token>, Vec<String>) {
        let mut errors = Errors::default();
        let tokens = tokens(text, &mut errors).into_iter().map(|(token, _)| token).collect();
        (tokens, errors.finish(text).into_iter().map(|e| e.message).collect())
    }

    fn word(text: &str) -> Token {
        Token::Word(text.to_owned())
    }

    #[test]
    fn reads_every_kind_of_token() {
        let (found, errors) =
            lex("Event('it\\'s').within(7 days) -- comment\n>= -1.5 && 2024-01-02T03:04:05.5Z");
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(
            found,
            [
                word("event"),
                Token::Symbol("("),
                Token::String("it's".to_owned()),
                Token::Symbol(")"),
                Token::Symbol("."),
                word("within"),
                Token::Symbol("("),
                Token::Number(7_u64.into()),
                word("days"),
                Token::Symbol(")"),
                Token::Symbol(">="),
                Token::Number(Number::parse("-1.5").expect("number")),
                Token::Symbol("&&"),
                Token::Date("2024-01-02T03:04:05.5Z".to_owned()),
                Token::End,
            ]
        );
    }

    #[test]
    fn goes_on_after_what_it_cannot_read() {
        let (found, errors) = lex("a # \"b\" 2024-13-01 'c");
        assert_eq!(found.len(), 5);
        assert_eq!(
            errors,
            [
                "unexpected character `#`",
                "strings are written in single quotes",
                "`2024-13-01` is not a date or timestamp",
                "this string has no end",
            ]
        );
    }

    #[test]
    fn a_method_may_follow_a_number_or_date() {
        assert_eq!(lex("2024-01-01.exists").0.len(), 4);
        assert_eq!(lex("5.exists").0.len(), 4);
        assert_eq!(lex("7days").0.len(), 3);
    }
}
