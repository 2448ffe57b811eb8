//! Trait names: those that have two spellings (`firstName` and `first_name` are the same trait, decision R4), and those
//! that the service keeps for itself.

use std::borrow::Cow;

use super::act::LIST_TRAIT;

/// What the names of the traits begin with that keep what a person has said of a category of consent: `true` or `false`,
/// by the newest event that says so.
pub const CONSENT_TRAIT: &str = "$consent:";

/// The trait that says whether a person objects to decisions that are made about them by machines: it has the value `true`
/// while one of their [`objection_trait`]s has.
pub const OBJECTION_TRAIT: &str = "$objection";

/// What the names of traits begin with that keep one objection each.
pub const OBJECTIONS: &str = "$objection:";

/// The trait that keeps one objection, by its id.
pub fn objection_trait(id: &str) -> String {
    format!("{OBJECTIONS}{id}")
}

/// Whether the service keeps the trait for itself: events cannot set it, queries of customers cannot name it, and nobody is
/// shown or sent it among the traits.
pub fn is_hidden(name: &str) -> bool {
    let kept = [LIST_TRAIT, CONSENT_TRAIT, OBJECTIONS];
    name.starts_with('$') && (name == OBJECTION_TRAIT || kept.iter().any(|kept| name.starts_with(kept)))
}

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
    use super::{canonical, is_hidden, objection_trait};

    #[test]
    fn what_the_service_keeps_for_itself_is_hidden_and_nothing_else() {
        assert!(is_hidden("$list:a") && is_hidden("$consent:ads"));
        assert!(is_hidden("$objection") && is_hidden(&objection_trait("m")));
        assert!(!is_hidden("$name") && !is_hidden("consent:ads") && !is_hidden(""));
    }

    #[test]
    fn reserved_names_have_two_spellings_and_others_one() {
        assert_eq!(canonical("firstName"), "first_name");
        assert_eq!(canonical("first_name"), "first_name");
        assert_eq!(canonical("favoriteColor"), "favoriteColor");
    }
}
