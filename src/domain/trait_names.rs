//! Trait names that have two spellings: `firstName` and `first_name` are the same trait (decision R4).

use std::borrow::Cow;

/// Reserved names of more than one word, in camelCase and in `snake_case`. One-word names have one spelling.
const RESERVED: [(&str, &str); 3] =
    [("createdAt", "created_at"), ("firstName", "first_name"), ("lastName", "last_name")];

/// The name under which a trait is found: `snake_case` for a reserved name, any other name as it is.
pub fn canonical(name: &str) -> Cow<'_, str> {
    match RESERVED.iter().find(|(camel, _)| *camel == name) {
        Some((_, snake)) => Cow::Borrowed(snake),
        None => Cow::Borrowed(name),
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn reserved_names_have_two_spellings_and_others_one() {
        assert_eq!(canonical("firstName"), "first_name");
        assert_eq!(canonical("first_name"), "first_name");
        assert_eq!(canonical("favoriteColor"), "favoriteColor");
    }
}
