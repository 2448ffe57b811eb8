//! What operators do to profiles. Acts stand in the log between the events, so that the same log gives the same
//! profiles, operators included.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Collection, IdKey, Offset};

/// What the names of the traits begin with that keep who is on a list. Events cannot set them, and nobody is shown them.
pub const LIST_TRAIT: &str = "$list:";

/// The type of identifier that accounts have.
pub const ACCOUNT_TYPE: &str = "group_id";

/// An identifier by the name of its type and its normalised value: what a profile is named by in the log, because its
/// number is only what the log makes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Named {
    /// Its type.
    #[serde(rename = "type")]
    pub id_type: String,
    /// Its normalised value.
    pub id: String,
}

impl Named {
    /// What it is found by.
    pub fn key(&self, collection: Collection) -> IdKey {
        IdKey::of(collection, &self.id_type, &self.id)
    }
}

/// An operator's act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// Takes an identifier away from the profile that has it, unless it is its last one.
    DeleteIdentifier {
        /// Whose.
        collection: Collection,
        /// Its type.
        id_type: String,
        /// Its normalised value.
        value: String,
    },
    /// Gives an identifier to another profile, unless it is the last one of its own.
    MoveIdentifier {
        /// The identifier of a user.
        identifier: Named,
        /// An identifier of the user that gets it.
        to: Named,
    },
    /// Lets a value out of quarantine, for good: it is counted no more.
    LiftQuarantine {
        /// Whose identifiers have the type.
        collection: Collection,
        /// Its type.
        id_type: String,
        /// Its normalised value.
        value: String,
    },
    /// Puts the profiles that have these identifiers onto a list, or takes them off it.
    ChangeList {
        /// The trait that keeps it.
        list: String,
        /// Type and normalised value of one identifier of each profile.
        ids: Vec<(String, String)>,
        /// Onto it, or off it.
        listed: bool,
    },
    /// Makes one profile of these users.
    MergeProfiles {
        /// One identifier of each.
        ids: Vec<Named>,
        /// Also where the profile would be beyond a limit.
        force: bool,
    },
    /// Takes a merge of two users back (decision I11).
    UndoMerge {
        /// The merge.
        merge: Uuid,
        /// What made it: after a change of the settings a rebuild may number profiles, and so merges, in another way.
        offset: Offset,
        /// Identifiers of the absorbed side.
        ids: Vec<Named>,
    },
    /// Two users are never to become one by what events say.
    BlockMerge {
        /// An identifier of each.
        ids: [Named; 2],
    },
    /// Takes back that two users are never to become one.
    AllowMerge {
        /// An identifier of each.
        ids: [Named; 2],
    },
    /// A person objects to decisions that are made about them by machines. The act's message id names the objection.
    Object {
        /// An identifier of the user.
        user: Named,
    },
    /// Lifts objections of a person.
    LiftObjections {
        /// An identifier of the user.
        user: Named,
        /// Which ones.
        objections: Vec<String>,
    },
    /// Takes a user out of an account, until a `group` call puts it in again.
    Unlink {
        /// An identifier of the user.
        user: Named,
        /// The account's `group_id`.
        account: String,
    },
    /// Erases people. Who they are stands with the regulation and nowhere in the log.
    Erase {
        /// The regulation.
        regulation: Uuid,
        /// The first of its people,
        first: i32,
        /// and how many.
        count: i32,
    },
}

impl Act {
    /// The identifiers whose profiles it is about.
    pub fn identifiers(&self) -> Vec<(Collection, Named)> {
        let of_users = |ids: &[Named]| ids.iter().map(|id| (Collection::Users, id.clone())).collect();
        match self {
            Self::DeleteIdentifier { collection, id_type, value }
            | Self::LiftQuarantine { collection, id_type, value } => {
                vec![(*collection, Named { id_type: id_type.clone(), id: value.clone() })]
            }
            Self::ChangeList { ids, .. } => {
                let named =
                    |(id_type, id): &(String, String)| Named { id_type: id_type.clone(), id: id.clone() };
                ids.iter().map(|id| (Collection::Users, named(id))).collect()
            }
            Self::MoveIdentifier { identifier, to } => of_users(&[to.clone(), identifier.clone()]),
            Self::MergeProfiles { ids, .. } | Self::UndoMerge { ids, .. } => of_users(ids),
            Self::BlockMerge { ids } | Self::AllowMerge { ids } => of_users(ids),
            Self::Object { user } | Self::LiftObjections { user, .. } => of_users(std::slice::from_ref(user)),
            Self::Unlink { user, account } => {
                let account = Named { id_type: ACCOUNT_TYPE.to_owned(), id: account.clone() };
                vec![(Collection::Users, user.clone()), (Collection::Accounts, account)]
            }
            Self::Erase { .. } => Vec::new(),
        }
    }

    /// Whether it needs more than the profiles it names: such an act stands in the log in a chunk of its own.
    pub const fn stands_alone(&self) -> bool {
        matches!(self, Self::UndoMerge { .. } | Self::Unlink { .. } | Self::Erase { .. })
    }

    /// Its name, as the audit log has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DeleteIdentifier { .. } => "identifier.delete",
            Self::MoveIdentifier { .. } => "identifier.move",
            Self::LiftQuarantine { .. } => "quarantine.lift",
            Self::ChangeList { .. } => "list.change",
            Self::MergeProfiles { .. } => "profiles.merge",
            Self::UndoMerge { .. } => "merge.undo",
            Self::BlockMerge { .. } => "merge.block",
            Self::AllowMerge { .. } => "merge.allow",
            Self::Object { .. } => "objection.raise",
            Self::LiftObjections { .. } => "objection.lift",
            Self::Unlink { .. } => "account.unlink",
            Self::Erase { .. } => "profiles.erase",
        }
    }
}

/// Who did something: an access token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Public id of the token.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// An act as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What was done.
    #[serde(flatten)]
    pub act: Act,
    /// By whom.
    #[serde(default)]
    pub by: Actor,
}

/// What an act did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Why it did nothing, where it did nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<String>,
    /// Profiles it changed, by their public ids.
    pub profiles: Vec<ProfileEffect>,
    /// Identifiers that went from one profile to another, or to nobody.
    pub identifiers: Vec<IdentifierEffect>,
    /// Events that belong to another profile now.
    pub events_moved: u64,
    /// Events of the profile that the log keeps no longer: what they left is lost where it is made anew.
    pub events_gone: u64,
    /// Who entered and left which audiences.
    pub transitions: Vec<TransitionEffect>,
}

/// See [`Effect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileEffect {
    /// Public id.
    pub profile_id: String,
    /// `changed`, `absorbed` or `separated`.
    pub change: String,
}

/// See [`Effect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentifierEffect {
    /// The identifier.
    #[serde(flatten)]
    pub identifier: Named,
    /// Public id of the profile that had it.
    pub from: Option<String>,
    /// Public id of the profile that has it now; none for nobody.
    pub to: Option<String>,
}

/// See [`Effect`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionEffect {
    /// Key of the audience.
    pub audience: String,
    /// Public id.
    pub profile_id: String,
    /// `entered` or `left`.
    pub transition: String,
}
