//! What of a call's traits was not taken, and why.

use crate::engine::traits::{NAME_CHARS_MAX, TRAITS_MAX};

/// Traits of a call that were not taken: one warning for each reason.
#[derive(Default)]
pub(super) struct LeftOut {
    pub(super) reserved: Vec<String>,
    pub(super) invalid: Vec<String>,
    pub(super) too_many: Vec<String>,
}

impl LeftOut {
    pub(super) fn messages(self) -> Vec<(&'static str, String)> {
        let message = |names: &[String], why: &str| {
            let others =
                if names.len() > 1 { format!(" and {} others", names.len() - 1) } else { String::new() };
            let first: String =
                names.first().map_or("", String::as_str).chars().take(NAME_CHARS_MAX).collect();
            format!("{why}: {first:?}{others} were left out")
        };
        let all = [
            (
                "trait_reserved",
                self.reserved,
                "a computed trait or audience has this name, or the service keeps it for itself".to_owned(),
            ),
            (
                "trait_name_invalid",
                self.invalid,
                format!("a trait name must have 1 to {NAME_CHARS_MAX} characters"),
            ),
            ("too_many_profile_traits", self.too_many, format!("the profile has {TRAITS_MAX} traits")),
        ];
        let some = all.into_iter().filter(|(_, names, _)| !names.is_empty());
        some.map(|(code, names, why)| (code, message(&names, &why))).collect()
    }
}
