//! What an access token may do: scopes, and roles as names for sets of them.

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Profiles, audiences, lists; what of it is personal is masked unless there is [`Scope::PiiRead`], too.
    Read,
    /// Definitions, destinations, settings, what operators do to profiles.
    Write,
    /// Sources, tokens, and whatever [`Scope::Privacy`] allows.
    Admin,
    /// What is done for the people the data is about, and the audit log.
    Privacy,
    /// Seeing personal data as it is: identifiers, traits, properties of events.
    PiiRead,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::Admin, Self::Privacy, Self::PiiRead];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Privacy => "privacy",
            Self::PiiRead => "pii:read",
        }
    }

    /// Reads the word of the API.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Whether a token that has this scope may do what needs `needed`.
    pub fn allows(self, needed: Self) -> bool {
        self == needed || matches!((self, needed), (Self::Admin, Self::Privacy))
    }
}

/// A named set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything in the space.
    Owner,
    /// Everything but seeing personal data.
    Admin,
    /// Reads, and decides about definitions, destinations and settings.
    Editor,
    /// Reads.
    Viewer,
    /// Answers the people the data is about: sees personal data, and does what they ask for.
    Privacy,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Admin, Self::Editor, Self::Viewer, Self::Privacy];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Viewer => "viewer",
            Self::Privacy => "privacy",
        }
    }

    /// Reads the word of the API.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// What it may do, in the order of [`Scope::ALL`].
    pub const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Owner => &Scope::ALL,
            Self::Admin => &[Scope::Read, Scope::Write, Scope::Admin],
            Self::Editor => &[Scope::Read, Scope::Write],
            Self::Viewer => &[Scope::Read],
            Self::Privacy => &[Scope::Read, Scope::Privacy, Scope::PiiRead],
        }
    }

    /// The role that has just these scopes, if there is one. They are in the order of [`Scope::ALL`].
    pub fn of(scopes: &[Scope]) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.scopes() == scopes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back_and_roles_are_told_apart() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(scope));
        }
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(Role::of(role.scopes()), Some(role));
            assert!(role.scopes().is_sorted(), "{role:?}");
        }
        assert_eq!(Role::of(&[Scope::Write]), None);
        assert!(Scope::Admin.allows(Scope::Privacy) && !Scope::Admin.allows(Scope::PiiRead));
        assert!(!Scope::Privacy.allows(Scope::Admin));
    }
}
