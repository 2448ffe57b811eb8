//! Dotted names that walk into nested objects: `address.city`; an escaped dot is part of a name (A2b).

use super::json;

/// A parsed dotted name; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    head: String,
    tail: Vec<String>,
}

impl Path {
    /// Reads a dotted name; `None` when it or one of its parts is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let mut segments = vec![String::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c == '.' {
                segments.push(String::new());
            } else {
                let literal = if c == '\\' { chars.next()? } else { c };
                segments.last_mut()?.push(literal);
            }
        }
        if segments.iter().any(String::is_empty) {
            return None;
        }
        let tail = segments.split_off(1);
        Some(Self { head: segments.pop()?, tail })
    }

    /// The key in the outermost object.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// The keys in the nested objects.
    pub fn tail(&self) -> &[String] {
        &self.tail
    }

    /// Replaces the outermost key, as for a reserved name in another spelling.
    pub fn with_head(self, head: String) -> Self {
        Self { head, ..self }
    }

    /// All keys, outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.head.as_str()).chain(self.tail.iter().map(String::as_str))
    }

    /// The raw JSON found by walking the nested keys into `value`, the value of the outermost key.
    pub fn walk_tail<'a>(&self, value: &'a str) -> Option<&'a str> {
        json::walk(value, &self.tail)
    }
}

impl std::fmt::Display for Path {
    /// The canonical spelling: dots and backslashes inside of a name are escaped.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, segment) in self.segments().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            f.write_str(&segment.replace('\\', "\\\\").replace('.', "\\."))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn dots_walk_and_escaped_dots_do_not() {
        let path = Path::parse(r"a\.b.c").expect("path");
        assert_eq!(path.segments().collect::<Vec<_>>(), ["a.b", "c"]);
        assert_eq!(path.to_string(), r"a\.b.c");
        assert_eq!(path.walk_tail(r#"{"c":5}"#), Some("5"));
        for text in ["", ".", "a.", ".a", "a..b", r"a\"] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }
}
