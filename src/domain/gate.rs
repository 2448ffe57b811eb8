//! Who is left out of an audience whatever its query says: people without consent, and people who have objected to decisions
//! that are made about them by machines.
//!
//! Both are conditions like any other, over traits that the service keeps for itself. So they count at once, in sizes,
//! members and transitions alike, and whoever asks why is shown them.

use super::trait_names::{CONSENT_TRAIT, OBJECTION_TRAIT};

/// What is asked of members besides the query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gates {
    /// A category of consent that the audience is about.
    pub consent_category: Option<String>,
    /// Who does not consent to it is no member.
    pub enforces_consent: bool,
    /// What follows from membership is decided by a person, and who objects to being decided about is no member.
    pub requires_human_review: bool,
}

/// Expressions, and levels of nesting, that the conditions add to a query at most.
pub const ADDED: usize = 2;
/// Bytes that they add at most.
pub const ADDED_BYTES: usize = 1_024;

impl Gates {
    /// Whether anything is asked.
    pub const fn are_closed(&self) -> bool {
        self.requires_human_review || (self.enforces_consent && self.consent_category.is_some())
    }

    /// The query with what is asked besides.
    pub fn apply(&self, query: &str) -> String {
        if !self.are_closed() {
            return query.to_owned();
        }
        let category = self.consent_category.as_ref().filter(|_| self.enforces_consent);
        let consent = category.map(|category| format!(" AND trait('{CONSENT_TRAIT}{category}') = true"));
        let objection =
            self.requires_human_review.then(|| format!(" AND NOT trait('{OBJECTION_TRAIT}') = true"));
        // A query may end in a comment.
        format!("({query}\n){}{}", consent.unwrap_or_default(), objection.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::Gates;

    #[test]
    fn open_gates_leave_the_query_as_it_is_and_closed_ones_keep_its_comments() {
        let open = Gates { consent_category: Some("Ads".to_owned()), ..Gates::default() };
        assert_eq!((open.are_closed(), open.apply("everyone()")), (false, "everyone()".to_owned()));
        let closed = Gates { enforces_consent: true, requires_human_review: true, ..open };
        assert_eq!(
            closed.apply("everyone() -- all"),
            "(everyone() -- all\n) AND trait('$consent:Ads') = true AND NOT trait('$objection') = true"
        );
    }
}
