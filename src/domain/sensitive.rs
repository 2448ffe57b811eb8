//! Sensitive data: what is looked for in events before they are stored, and what becomes of it (terms, section 4;
//! privacy duty P11).

/// What stands for a value that is not shown, and how everything begins that was masked. No identifier does: what was masked is not known any more, and whoever has a masked
/// value is not the same person for it.
pub const MASKED: &str = "***";

/// What is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// Numbers of payment cards: by issuer, length and check digit, or by the name of the key.
    CardNumber,
    /// International bank account numbers, by their check digits.
    Iban,
    /// Numbers of identity papers, social security and taxes.
    NationalId,
    /// Passwords, tokens, private keys, card verification codes.
    Secret,
    /// What is said of somebody's health.
    Health,
    /// Origin, belief, opinion, sexual life and what else the law protects specially.
    SpecialCategory,
}

impl Category {
    /// All of them, in the order they are stored and shown.
    pub const ALL: [Self; 6] =
        [Self::CardNumber, Self::Iban, Self::NationalId, Self::Secret, Self::Health, Self::SpecialCategory];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CardNumber => "card_number",
            Self::Iban => "iban",
            Self::NationalId => "national_id",
            Self::Secret => "secret",
            Self::Health => "health",
            Self::SpecialCategory => "special_category",
        }
    }

    /// Reads the word of the API.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.as_str() == word)
    }
}

/// What becomes of what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// It is left as it is, and not counted.
    Allow,
    /// The field is left out; an element of a list becomes null.
    Drop,
    /// What was found is replaced by `*`; card and account numbers keep their last four characters.
    Mask,
    /// What was found is replaced by a keyed hash: equal values stay equal, and nobody can tell what they were.
    Hash,
    /// The event is refused, and listed with the value masked.
    Reject,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Allow, Self::Drop, Self::Mask, Self::Hash, Self::Reject];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Drop => "drop",
            Self::Mask => "mask",
            Self::Hash => "hash",
            Self::Reject => "reject",
        }
    }

    /// Reads the word of the API.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

/// A pattern of the customer's own. With both parts given, both have to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensitivePattern {
    /// What findings call it.
    pub name: String,
    /// Regular expression for keys.
    pub key: Option<String>,
    /// Regular expression for values: strings and numbers.
    pub value: Option<String>,
    /// What becomes of it.
    pub action: Action,
}

/// What a space does about sensitive data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensitiveSettings {
    /// Raised by every change; 0 while nobody has changed anything.
    pub version: i64,
    /// For each of [`Category::ALL`].
    pub actions: [Action; Category::ALL.len()],
    /// Applied in this order, after the categories.
    pub patterns: Vec<SensitivePattern>,
    /// What hashes are made with.
    pub hash_key: Vec<u8>,
}

impl Default for SensitiveSettings {
    fn default() -> Self {
        let actions = Category::ALL.map(|category| match category {
            Category::CardNumber | Category::Iban => Action::Mask,
            Category::NationalId | Category::Secret | Category::Health | Category::SpecialCategory => {
                Action::Drop
            }
        });
        Self { version: 0, actions, patterns: Vec::new(), hash_key: Vec::new() }
    }
}

impl SensitiveSettings {
    /// What becomes of this category.
    pub fn action(&self, category: Category) -> Action {
        let place = Category::ALL.iter().position(|known| *known == category);
        place.and_then(|place| self.actions.get(place)).copied().unwrap_or(Action::Drop)
    }
}
