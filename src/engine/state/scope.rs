//! Whose events a leaf counts: those of a profile itself, or those of the users of an account.

/// Whose events a leaf counts, and where its states are kept.
///
/// What counts for an account is decided per event (decision I14): an event whose `context.groupId` names an account
/// counts for that one only, every other event counts for all accounts of its user. So states of members and pools are
/// kept on the *user*: those of events that name no account with its other states, those of events that name one in the
/// seat of that account ([`crate::engine::seats`]). What a user brings to an account is both, merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// A user's own: all of its events, whatever accounts they name.
    #[default]
    Own,
    /// A user's as a member of an account: inside of `ANY` and `ALL`. Kept on the user.
    Member,
    /// An account's: the events of all of its users, pooled. Kept on the users, too, and on the account merged.
    Pool,
    /// An account's own calls, those that write its traits. Kept on the account.
    Account,
}

impl Scope {
    /// Whether it makes a difference which account an event names.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Member | Self::Pool)
    }

    /// What is added to the canonical text of a leaf.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::Own => "",
            Self::Member => ".of(member)",
            Self::Pool => ".of(users)",
            Self::Account => ".of(account)",
        }
    }
}

/// Into what an event is folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The states of its user; `named` when it names an account.
    User {
        /// It counts for one account only, so what is shared is folded into that one's seat.
        named: bool,
    },
    /// The seat of the account that it names, on its user.
    Seat,
    /// The states of an account it counts for.
    Account,
}

impl Target {
    /// Whether leaves of this scope are kept there.
    pub(in crate::engine) const fn keeps(self, scope: Scope) -> bool {
        match (self, scope) {
            (Self::User { .. }, Scope::Own)
            | (Self::User { named: false } | Self::Seat, Scope::Member | Scope::Pool)
            | (Self::Account, Scope::Pool | Scope::Account) => true,
            (Self::User { .. }, Scope::Account | Scope::Member | Scope::Pool)
            | (Self::Seat, Scope::Own | Scope::Account)
            | (Self::Account, Scope::Own | Scope::Member) => false,
        }
    }
}
