//! On a profile: its events, its traits, and what they become.

use std::collections::BTreeSet;

use crate::domain::{Collection, Path, Value, trait_names};
use crate::engine::condition::{Condition, Logic, Op};
use crate::engine::state::{LeafSpec, Read, Reducer, Scope as LeafScope};

use super::ast::{Call, Expr, Name};
use super::error::ErrorKind;
use super::event_scope::any_item;
use super::lower::{Lowering, Scope, Typed};
use super::plan::{Leaves, PlanCondition, PlanOperand, QUANTIFIERS, Quantifier, Scan};
use super::stream::Draft;
use super::vocabulary::{self, REDUCERS};

/// On a profile.
#[derive(Default)]
pub(super) struct ProfileScope {
    pub(super) leaves: Leaves,
    pub(super) traits: BTreeSet<String>,
    /// Traits of the users of an account.
    pub(super) traits_of_users: BTreeSet<String>,
    pub(super) scans: Vec<Scan>,
    /// What is asked of each user of an account.
    pub(super) quantifiers: Vec<PlanCondition>,
    collection: Collection,
    /// Inside of `ANY` or `ALL`: on a user of the account.
    of_users: bool,
}

impl ProfileScope {
    /// On a profile of that collection.
    pub(super) fn of(collection: Collection) -> Self {
        let mut scope = Self { collection, ..Self::default() };
        if collection == Collection::Accounts {
            scope.leaves.scope = LeafScope::Pool;
        }
        scope
    }

    /// Why `ANY` or `ALL` cannot stand here; nothing where it can.
    fn refusal(&self, word: &str) -> Option<String> {
        if self.collection == Collection::Users {
            return Some(format!(
                "`{word}` asks about the users of an account, so it can only stand in a definition of type `accounts`; \
                 this one is of type `users`"
            ));
        }
        if self.of_users {
            return Some(format!(
                "`{word}` cannot stand inside of another `ANY` or `ALL`: what stands there is about one user; join the \
                 two with AND or OR"
            ));
        }
        (self.quantifiers.len() >= QUANTIFIERS)
            .then(|| format!("a definition may have at most {QUANTIFIERS} times `ANY` or `ALL`"))
    }
}

impl Scope for ProfileScope {
    type Operand = PlanOperand;

    fn literal(value: Value) -> PlanOperand {
        PlanOperand::Literal(value)
    }

    fn function(lowering: &mut Lowering<'_, Self>, call: &Call) -> Option<Typed<PlanOperand>> {
        match call.name.text.as_str() {
            "event" => Draft::new(lowering, call).map(Typed::Stream),
            "trait" => {
                let path = lowering.trait_path(call)?;
                Some(Typed::Scalar(PlanOperand::Trait(path)))
            }
            "audience" => {
                let left = PlanOperand::Trait(lowering.trait_path(call)?);
                let arguments = vec![PlanOperand::Literal(Value::Bool(true))];
                Some(Typed::Boolean(Logic::Is(Condition { left, op: Op::Equals, arguments })))
            }
            "random_bucket" => {
                let (salt, span) = lowering.only_string(call)?;
                if salt.is_empty() {
                    return lowering.error(
                        ErrorKind::Syntax,
                        span,
                        "the salt is empty; give the draw a name",
                    );
                }
                Some(Typed::Scalar(PlanOperand::Bucket(salt.to_owned())))
            }
            "any_item" => {
                let item = any_item(lowering, call)?;
                let head = trait_names::canonical(item.path().head()).into_owned();
                lowering.scope.traits().insert(head.clone());
                let left = PlanOperand::AnyItem(Box::new(item.with_head(head)));
                let arguments = vec![PlanOperand::Literal(Value::Bool(true))];
                Some(Typed::Boolean(Logic::Is(Condition { left, op: Op::Equals, arguments })))
            }
            "everyone" => {
                lowering.no_arguments(call)?;
                Some(Typed::Boolean(Logic::Constant(true)))
            }
            name @ ("property" | "context" | "message_type" | "timestamp" | "source") => {
                let message =
                    format!("`{name}` reads an event, so it can only stand inside of `where` or a reducer");
                lowering.error(ErrorKind::Type, call.span, message)
            }
            _ => lowering.unknown_function(call, &vocabulary::PROFILE_FUNCTIONS),
        }
    }

    fn quantified(
        lowering: &mut Lowering<'_, Self>,
        keyword: &Name,
        operand: &Expr,
    ) -> Option<PlanCondition> {
        let word = keyword.text.to_uppercase();
        if let Some(message) = lowering.scope.refusal(&word) {
            return lowering.error(ErrorKind::Type, keyword.span, message);
        }
        let outside = std::mem::replace(&mut lowering.scope.leaves.scope, LeafScope::Member);
        lowering.scope.of_users = true;
        let condition = lowering.boolean(operand);
        lowering.scope.of_users = false;
        lowering.scope.leaves.scope = outside;
        lowering.scope.quantifiers.push(condition?);
        let quantifier = if word == "ALL" { Quantifier::All } else { Quantifier::Any };
        let left = PlanOperand::Users(lowering.scope.quantifiers.len() - 1, quantifier);
        let arguments = vec![PlanOperand::Literal(Value::Bool(true))];
        Some(Logic::Is(Condition { left, op: Op::Equals, arguments }))
    }

    fn reduced(&mut self, draft: Draft, reducer: Reducer, read: Read) -> Option<Typed<PlanOperand>> {
        let operand = if draft.is_dynamic() {
            self.scans.push(draft.into_scan(reducer, &mut self.leaves, None));
            PlanOperand::Scan(self.scans.len() - 1, read)
        } else {
            PlanOperand::Leaf(self.leaves.add(draft.finish(reducer)), read)
        };
        Some(if read == Read::Unique { Typed::List(operand) } else { Typed::Scalar(operand) })
    }

    fn held_since(&mut self, operand: PlanOperand) -> Option<PlanOperand> {
        let PlanOperand::Trait(path) = operand else { return None };
        if path.reads_list() {
            return None;
        }
        let head = Path::key(path.head());
        let leaf = self.leaves.add(LeafSpec::trait_writes(head));
        Some(PlanOperand::HeldSince(path, leaf))
    }

    fn list_count(list: PlanOperand) -> Option<PlanOperand> {
        match list {
            PlanOperand::Leaf(leaf, _) => Some(PlanOperand::Leaf(leaf, Read::UniqueCount)),
            PlanOperand::Scan(scan, _) => Some(PlanOperand::Scan(scan, Read::UniqueCount)),
            _ => None,
        }
    }

    fn is_in_trait(&self) -> bool {
        true
    }

    fn traits(&mut self) -> &mut BTreeSet<String> {
        if self.of_users { &mut self.traits_of_users } else { &mut self.traits }
    }
}

impl Lowering<'_, ProfileScope> {
    /// The value of a computed trait.
    pub(super) fn output(&mut self, tree: &Expr) -> Option<PlanOperand> {
        match self.typed(tree)? {
            Typed::Scalar(operand) => Some(operand),
            Typed::List(list) => Some(list),
            Typed::Stream(_) => {
                let message = "a computed trait is a value; end it with a reducer such as `.count()`";
                self.errors.add_expecting(ErrorKind::Type, tree.span, message, &REDUCERS);
                None
            }
            Typed::Boolean(_) => {
                let message = "a computed trait is a value, not a condition; a condition makes an audience";
                self.error(ErrorKind::Type, tree.span, message)
            }
        }
    }
}
