//! Dotted names that walk into nested objects and lists: `address.city`, `products.$.sku`. An escaped dot is part of a
//! name, and so is an escaped `$` (A2b).

use super::json;

/// A parsed dotted name; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    head: String,
    tail: Vec<Step>,
    /// Whether any step is [`Step::Each`].
    reads_list: bool,
}

/// A step from a value to what is inside of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    /// The value of a key.
    Key(String),
    /// `$`: each element of a list.
    Each,
}

impl Path {
    /// Reads a dotted name; `None` when it or one of its parts is empty, or when it begins with `$`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut segments = vec![(String::new(), false)];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c == '.' {
                segments.push((String::new(), false));
            } else {
                let is_escaped = c == '\\';
                let literal = if is_escaped { chars.next()? } else { c };
                let (segment, escaped) = segments.last_mut()?;
                segment.push(literal);
                *escaped |= is_escaped;
            }
        }
        let mut steps = segments.into_iter().map(|(segment, escaped)| match segment.as_str() {
            "" => None,
            "$" if !escaped => Some(Step::Each),
            _ => Some(Step::Key(segment)),
        });
        let Step::Key(head) = steps.next()?? else { return None };
        let tail = steps.collect::<Option<Vec<_>>>()?;
        let reads_list = tail.contains(&Step::Each);
        Some(Self { head, tail, reads_list })
    }

    /// One key that walks nowhere.
    pub fn key(name: &str) -> Self {
        Self { head: name.to_owned(), tail: Vec::new(), reads_list: false }
    }

    /// The key in the outermost object.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Whether it is one key that walks nowhere.
    pub const fn is_key(&self) -> bool {
        self.tail.is_empty()
    }

    /// Whether it means the elements of a list, so any number of values.
    pub const fn reads_list(&self) -> bool {
        self.reads_list
    }

    /// Replaces the outermost key, as for a reserved name in another spelling.
    pub fn with_head(self, head: String) -> Self {
        Self { head, ..self }
    }

    /// The elements of what this names; the same when those are meant already.
    pub fn each(mut self) -> Self {
        if self.tail.last() != Some(&Step::Each) {
            self.tail.push(Step::Each);
        }
        self.reads_list = true;
        self
    }

    /// The raw JSON found by walking the nested keys into `value`, the value of the outermost key. Nothing for a path
    /// through a list.
    pub fn walk_tail<'a>(&self, value: &'a str) -> Option<&'a str> {
        self.tail.iter().try_fold(value, |value, step| match step {
            Step::Key(key) => json::get(value, key),
            Step::Each => None,
        })
    }

    /// The raw JSON of all that is found by walking into `value`, the value of the outermost key, in the order of the
    /// lists. An element that lacks what is looked for in it counts as null; what is no list has no elements.
    pub fn walk_each<'a>(&self, value: &'a str) -> Vec<&'a str> {
        let mut found = Vec::new();
        collect(&self.tail, value, false, &mut found);
        found
    }
}

fn collect<'a>(steps: &[Step], value: &'a str, is_element: bool, found: &mut Vec<&'a str>) {
    match steps.split_first() {
        None => found.push(value),
        Some((Step::Each, rest)) => {
            json::elements(value).for_each(|element| collect(rest, element, true, found));
        }
        Some((Step::Key(key), rest)) => match json::get(value, key) {
            Some(inner) => collect(rest, inner, is_element, found),
            None if is_element && !rest.contains(&Step::Each) => found.push("null"),
            None => {}
        },
    }
}

impl std::fmt::Display for Path {
    /// The canonical spelling: dots and backslashes inside of a name are escaped, and so is a name that is `$`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let escape = |name: &str| match name {
            "$" => "\\$".to_owned(),
            name => name.replace('\\', "\\\\").replace('.', "\\."),
        };
        f.write_str(&escape(&self.head))?;
        self.tail.iter().try_for_each(|step| match step {
            Step::Key(key) => write!(f, ".{}", escape(key)),
            Step::Each => f.write_str(".$"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn dots_walk_and_escaped_dots_do_not() {
        let path = Path::parse(r"a\.b.c").expect("path");
        assert_eq!((path.head(), path.is_key(), path.reads_list()), ("a.b", false, false));
        assert_eq!(path.to_string(), r"a\.b.c");
        assert_eq!(path.walk_tail(r#"{"c":5}"#), Some("5"));
        for text in ["", ".", "a.", ".a", "a..b", r"a\", "$", "$.a"] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }

    #[test]
    fn dollars_walk_through_lists() {
        let found = |path: &str, value: &'static str| Path::parse(path).expect("path").walk_each(value);
        assert_eq!(found("tags.$", r#"["a", 1, null]"#), ["\"a\"", "1", "null"]);
        assert_eq!(found("p.$.sku", r#"[{"sku":"A"},{"x":1},5]"#), ["\"A\"", "null", "null"]);
        assert_eq!(found("o.$.p.$.n.x", r#"[{"p":[{"n":{"x":1}},{"n":2}]},{"q":1}]"#), ["1", "null"]);
        assert_eq!(found("m.$.$", "[[1,2],3,[]]"), ["1", "2"]);
        for nothing in ["5", "[]", "{}", "\"a\"", "null"] {
            assert!(found("p.$", nothing).is_empty() && found("p.$.sku", nothing).is_empty(), "{nothing}");
        }
        assert!(found("p.items.$", "{}").is_empty());
        let literal = Path::parse(r"a.\$").expect("path");
        assert_eq!((literal.to_string().as_str(), literal.reads_list()), (r"a.\$", false));
        assert_eq!(literal.walk_tail(r#"{"$":1}"#), Some("1"));
        let path = Path::parse("p").expect("path").each();
        assert_eq!((path.to_string().as_str(), path.clone().each()), ("p.$", path));
    }
}
