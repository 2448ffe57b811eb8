//! Which events a leaf counts: those of one name, of a pattern with `*`, or the calls that write traits.

use std::fmt;

/// The names of events that a leaf counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventName {
    /// Exactly this one.
    Exact(String),
    /// Every name that fits.
    Glob(Glob),
    /// No event of the language, but the calls that write the traits of their user.
    TraitWrites,
}

/// A name in which `*` stands for any characters, also none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Glob {
    /// What stands before the first `*`.
    first: String,
    /// What stands between two, in order; none is empty.
    middle: Vec<String>,
    /// What stands behind the last.
    last: String,
}

impl EventName {
    /// Reads a name as it stands in a query: `*` is any characters, `\*` is the character itself.
    pub fn parse(text: &str) -> Self {
        let mut pieces = vec![String::new()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let is_escaped = c == '\\' && chars.next_if_eq(&'*').is_some();
            if c == '*' {
                pieces.push(String::new());
            } else if let Some(piece) = pieces.last_mut() {
                piece.push(if is_escaped { '*' } else { c });
            }
        }
        let last = pieces.pop().unwrap_or_default();
        if pieces.is_empty() {
            return Self::Exact(last);
        }
        let first = pieces.remove(0);
        pieces.retain(|piece| !piece.is_empty());
        Self::Glob(Glob { first, middle: pieces, last })
    }

    /// The name, when it is only one.
    pub fn exact(&self) -> Option<&str> {
        match self {
            Self::Exact(name) => Some(name),
            Self::Glob(_) | Self::TraitWrites => None,
        }
    }

    /// Whether an event of this name is meant. Events without a name never are.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Glob(glob) => !name.is_empty() && glob.matches(name),
            Self::TraitWrites => false,
        }
    }
}

impl fmt::Display for EventName {
    /// As it stands in a query, between the quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = |text: &str| text.replace('*', "\\*");
        match self {
            Self::Exact(name) => f.write_str(&escape(name)),
            Self::Glob(Glob { first, middle, last }) => {
                write!(f, "{}*", escape(first))?;
                middle.iter().try_for_each(|piece| write!(f, "{}*", escape(piece)))?;
                f.write_str(&escape(last))
            }
            Self::TraitWrites => Ok(()),
        }
    }
}

impl Glob {
    /// Each piece is taken where it is found first: what is left for the others can only be longer.
    fn matches(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(self.first.as_str()) else { return false };
        let Some(mut rest) = rest.strip_suffix(self.last.as_str()) else { return false };
        for piece in &self.middle {
            let Some(at) = rest.find(piece.as_str()) else { return false };
            rest = rest.get(at + piece.len()..).unwrap_or_default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_are_any_characters() {
        for (pattern, matching, others) in [
            ("*", &["A", "é", "Page Viewed"][..], &[""][..]),
            ("Cart *", &["Cart Viewed", "Cart "], &["Cart", "My Cart Viewed", "cart viewed"]),
            ("* Viewed", &["Page Viewed", " Viewed"], &["Viewed", "Page Viewed Twice"]),
            ("a*b*c", &["abc", "aXbYc", "abbc"], &["ac", "acb", "abcd"]),
            ("ab*ba", &["abba", "ab-ba"], &["aba", "ab"]),
            ("a**c", &["ac", "abc"], &["a"]),
            (r"5\* *", &["5* Rated"], &["5 Rated", "55* Rated"]),
        ] {
            let name = EventName::parse(pattern);
            assert!(name.exact().is_none());
            for text in matching {
                assert!(name.matches(text), "{pattern} {text}");
            }
            for text in others {
                assert!(!name.matches(text), "{pattern} {text}");
            }
            assert_eq!(EventName::parse(&name.to_string()), name);
        }
    }

    #[test]
    fn a_name_without_stars_is_itself() {
        for (text, name) in [("A", "A"), (r"a\b", r"a\b"), (r"5\*", "5*"), ("", "")] {
            assert_eq!(EventName::parse(text), EventName::Exact(name.to_owned()));
            assert!(EventName::parse(text).matches(name));
            assert_eq!(EventName::Exact(name.to_owned()).to_string(), text);
        }
    }
}
