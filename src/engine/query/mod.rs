//! The query language: text → tokens → syntax tree → plan.
//!
//! [`compile`] is the only door. It never guesses: a text outside of the language, or of the part of it that
//! this version can do, is refused with all errors at their places. `docs/query-language.md` describes the
//! language for its users.

mod ast;
mod error;
mod event_scope;
mod form;
mod funnel;
mod layout;
mod lexer;
mod lower;
mod mentions;
mod narrow;
mod parser;
mod plan;
mod profile_scope;
mod shape;
mod sources;
mod stream;
mod vocabulary;
mod walk;

use crate::domain::{Collection, gate};
use error::Errors;
pub(in crate::engine) use error::nearest;
pub use error::{ErrorKind, QueryError, Span};
pub use form::{Comparison, Form, FormCondition, Join, Test};
pub use mentions::Known;
pub(in crate::engine) use plan::Scan;
pub use plan::{Plan, PlanCondition, PlanOperand, QUANTIFIERS, Quantifier, Root};
pub(in crate::engine) use shape::Shape;
pub use sources::{KnownSource, Sources};

/// What a definition makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A condition; its value is true or false.
    Audience,
    /// A scalar or a list.
    ComputedTrait,
}

/// What one definition may use (decision A17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `event(…)`, `trait(…)`, `property(…)` and other primary expressions.
    pub expressions: usize,
    /// Parentheses, NOT and `where` inside of each other.
    pub nesting: usize,
    /// Bytes of text.
    pub bytes: usize,
}

impl Limits {
    /// Longest time span that can be written, in milliseconds: 10,000 years. Far from the ends of the clock.
    pub(crate) const LONGEST_SPAN: i64 = 10_000 * 366 * 86_400_000;

    /// The same with room for what is asked of members besides a query, see [`gate`].
    pub const fn for_gates(self) -> Self {
        Self {
            expressions: self.expressions.saturating_add(gate::ADDED),
            nesting: self.nesting.saturating_add(gate::ADDED),
            bytes: self.bytes.saturating_add(gate::ADDED_BYTES),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { expressions: 50, nesting: 20, bytes: 32 * 1024 }
    }
}

/// Compiles a definition of users, or says all that is wrong with it, in the order of the text.
pub fn compile(text: &str, kind: Kind, limits: Limits) -> Result<Plan, Vec<QueryError>> {
    compile_for(Collection::Users, text, kind, limits)
}

/// Compiles a definition of that collection, or says all that is wrong with it, in the order of the text.
pub fn compile_for(
    collection: Collection,
    text: &str,
    kind: Kind,
    limits: Limits,
) -> Result<Plan, Vec<QueryError>> {
    let mut errors = Errors::default();
    if text.len() > limits.bytes {
        let message =
            format!("a definition may have at most {} bytes, this one has {}", limits.bytes, text.len());
        errors.add(ErrorKind::Limit, Span::new(0, text.len()), message);
        return Err(errors.finish(text));
    }
    let tokens = lexer::tokens(text, &mut errors);
    if tokens.len() == 1 && errors.is_empty() {
        let expected = ["event", "trait", "audience", "everyone"];
        errors.add_expecting(
            ErrorKind::Syntax,
            Span::new(0, text.len()),
            "the definition is empty",
            &expected,
        );
        return Err(errors.finish(text));
    }
    let tree = parser::parse(tokens, limits, &mut errors);
    walk::check_message_types(&tree, &mut errors);
    walk::check_lists(&tree, &mut errors);
    let plan = lower::lower(text, &tree, (collection, kind), &mut errors);
    match plan {
        Some(plan) if errors.is_empty() => Ok(plan),
        _ => Err(errors.finish(text)),
    }
}

/// The canonical text of a definition, an audience or a computed trait: one spelling and layout for all texts with the
/// same words. It means the same, comments stay behind the words they follow, and formatting it again changes nothing.
pub fn format(text: &str, limits: Limits) -> Result<String, Vec<QueryError>> {
    let mut fewest: Option<Vec<QueryError>> = None;
    for (collection, kind) in [
        (Collection::Users, Kind::Audience),
        (Collection::Users, Kind::ComputedTrait),
        // Whatever is right for users is right for accounts.
        (Collection::Accounts, Kind::Audience),
        (Collection::Accounts, Kind::ComputedTrait),
    ] {
        match compile_for(collection, text, kind, limits) {
            Ok(_) => {
                fewest = None;
                break;
            }
            // Whichever it was meant to be has fewer mistakes.
            Err(errors) if fewest.as_ref().is_none_or(|known| errors.len() < known.len()) => {
                fewest = Some(errors);
            }
            Err(_) => {}
        }
    }
    if let Some(errors) = fewest {
        return Err(errors);
    }
    let (tokens, comments) = lexer::tokens_and_comments(text, &mut Errors::default());
    let tokens: Vec<lexer::Token> = tokens.into_iter().map(|(token, _)| token).collect();
    Ok(layout::layout(&tokens, &comments))
}
