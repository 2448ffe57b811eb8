//! The events, properties and traits a query names, and a word about those nobody has seen: most likely they are
//! misspelt, and a query that waits for ever is no error that anybody could tell otherwise.

use std::collections::BTreeMap;

use crate::domain::{Collection, Path, Value, trait_names};

use super::ast::{ArgumentValue, Call, Expr, ExprKind};
use super::error::{ErrorKind, Errors, QueryError, Span, nearest};
use super::plan::Plan;
use crate::engine::state::EventName;

/// What a query names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Event,
    Trait,
    /// Of the event of that name; of any where there is none.
    Property(Option<String>),
}

/// A name in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) what: What,
    pub(super) name: String,
    pub(super) span: Span,
    /// Inside of `ANY` or `ALL`: a user of the account is asked.
    pub(super) of_users: bool,
}

/// What has been seen in a space.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Names of events, each with its properties where all of them are known.
    pub events: BTreeMap<String, Option<Vec<String>>>,
    /// Events of other names may have been seen, too.
    pub has_more_events: bool,
    /// Traits of the collection, by canonical name, computed traits and audiences included; nothing when there may be more.
    pub traits: Option<Vec<String>>,
    /// The same of users, for what definitions of accounts ask them.
    pub traits_of_users: Option<Vec<String>>,
}

impl Plan {
    /// Whether every audience and computed trait it names is one of the profiles that are asked there; `collection_of`
    /// says whose the definition of a key is.
    pub fn check_references(
        &self,
        collection_of: impl Fn(&str) -> Option<Collection>,
    ) -> Result<(), Vec<QueryError>> {
        let mut errors = Errors::default();
        for Mention { name, span, of_users, .. } in self.mentions.iter().filter(|m| m.what == What::Trait) {
            let asked = if *of_users { Collection::Users } else { self.collection() };
            let Some(found) = collection_of(&trait_names::canonical(name)).filter(|found| *found != asked)
            else {
                continue;
            };
            let help = match (found, self.collection()) {
                (Collection::Users, Collection::Accounts) => "; ask the users with `ANY (…)` or `ALL (…)`",
                (Collection::Accounts, Collection::Accounts) => {
                    "; ask the account outside of `ANY` and `ALL`"
                }
                (_, Collection::Users) => "; a definition of users cannot ask the accounts they are in",
            };
            let (found, asked) = (found.as_str(), asked.as_str());
            let message = format!("`{name}` is a definition of {found}, and here {asked} are asked{help}");
            errors.add(ErrorKind::Type, *span, message);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors.finish(self.text())) }
    }

    /// A word about each event, property and trait the query names that has not been seen, at its place.
    pub fn unseen(&self, known: &Known) -> Vec<QueryError> {
        let mut told = Errors::default();
        for mention in &self.mentions {
            match &mention.what {
                What::Event => unseen_event(mention, known, &mut told),
                What::Trait if mention.of_users => {
                    unseen_trait(mention, known.traits_of_users.as_deref(), &mut told);
                }
                What::Trait => unseen_trait(mention, known.traits.as_deref(), &mut told),
                What::Property(event) => unseen_property(mention, event.as_deref(), known, &mut told),
            }
        }
        told.finish(self.text())
    }
}

fn unseen_event(Mention { name, span, .. }: &Mention, known: &Known, told: &mut Errors) {
    let named = EventName::parse(name);
    if known.has_more_events || known.events.keys().any(|seen| named.matches(seen)) {
        return;
    }
    let message = match named.exact() {
        Some(_) => format!("no event named {name:?} has been seen"),
        None => format!("no event whose name fits {name:?} has been seen"),
    };
    let names: Vec<&str> = known.events.keys().map(String::as_str).collect();
    told.add_suggesting(ErrorKind::Unseen, *span, message, &[], nearest(name, &names));
}

fn unseen_trait(Mention { name, span, .. }: &Mention, traits: Option<&[String]>, told: &mut Errors) {
    let Some(traits) = traits else { return };
    if trait_names::is_hidden(name) || traits.iter().any(|seen| *seen == trait_names::canonical(name)) {
        return;
    }
    let names: Vec<&str> = traits.iter().map(String::as_str).collect();
    let message = format!("no trait named {name:?} has been seen");
    told.add_suggesting(ErrorKind::Unseen, *span, message, &[], nearest(name, &names));
}

fn unseen_property(
    Mention { name, span, .. }: &Mention,
    event: Option<&str>,
    known: &Known,
    told: &mut Errors,
) {
    // Of a pattern's events, or of one that was never seen, there is nothing to be said.
    let Some((event, Some(seen))) = event.and_then(|event| known.events.get_key_value(event)) else { return };
    if seen.iter().any(|seen| seen == name) {
        return;
    }
    let names: Vec<&str> = seen.iter().map(String::as_str).collect();
    let message = format!("no event named {event:?} has been seen with a property {name:?}");
    told.add_suggesting(ErrorKind::Unseen, *span, message, &[], nearest(name, &names));
}

/// All names of a query, in the order of the text.
pub(super) fn mentions(tree: &Expr) -> Vec<Mention> {
    let mut found = Vec::new();
    visit(tree, None, &mut found);
    found
}

fn visit(expr: &Expr, event: Option<&str>, found: &mut Vec<Mention>) {
    match &expr.kind {
        ExprKind::And(parts) | ExprKind::Or(parts) => parts.iter().for_each(|part| visit(part, event, found)),
        ExprKind::Not(inner) | ExprKind::Group(inner) => visit(inner, event, found),
        ExprKind::Quantifier(_, inner) => {
            let before = found.len();
            visit(inner, event, found);
            found.iter_mut().skip(before).for_each(|mention| mention.of_users = true);
        }
        ExprKind::Comparison(left, _, right) => {
            visit(left, event, found);
            visit(right, event, found);
        }
        ExprKind::Method(base, call) => {
            visit(base, event, found);
            visit_arguments(call, of_event(base).or(event), found);
        }
        ExprKind::Call(call) => visit_call(call, event, found),
        ExprKind::Literal(_) | ExprKind::Error => {}
    }
}

fn visit_call(call: &Call, event: Option<&str>, found: &mut Vec<Mention>) {
    let name = call.name.text.as_str();
    // What belongs to a parent is that of another event.
    let is_plain = call.arguments.iter().all(|argument| argument.label.is_none());
    let Some((text, span)) = first_text(call).filter(|_| is_plain) else { return };
    let head = || Path::parse(text).map(|path| path.head().to_owned());
    let what = match name {
        "event" => Some((What::Event, Some(text.to_owned()))),
        "trait" | "audience" => Some((What::Trait, head())),
        "any_item" if event.is_none() => Some((What::Trait, head())),
        "property" | "any_item" => Some((What::Property(event.map(str::to_owned)), head())),
        _ => None,
    };
    if let Some((what, Some(name))) = what {
        found.push(Mention { what, name, span, of_users: false });
    }
    // Inside of an item's condition names are those of the item.
}

fn visit_arguments(call: &Call, event: Option<&str>, found: &mut Vec<Mention>) {
    for argument in &call.arguments {
        match &argument.value {
            ArgumentValue::Expr(expr) => visit(expr, event, found),
            ArgumentValue::List(items) => items.iter().for_each(|item| visit(item, event, found)),
            ArgumentValue::Duration(_) | ArgumentValue::Error => {}
        }
    }
}

/// The name at the beginning of a chain of `event('…')`.
fn of_event(expr: &Expr) -> Option<&str> {
    match &expr.kind {
        ExprKind::Method(base, _) | ExprKind::Group(base) => of_event(base),
        ExprKind::Call(call) if call.name.text == "event" => first_text(call).map(|(text, _)| text),
        _ => None,
    }
}

fn first_text(call: &Call) -> Option<(&str, Span)> {
    match &call.arguments.first()?.value {
        ArgumentValue::Expr(Expr { kind: ExprKind::Literal(Value::String(text)), span }) => {
            Some((text, *span))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Limits, compile};
    use super::*;

    fn unseen(query: &str, known: &Known) -> Vec<(String, String, Option<String>)> {
        let plan = compile(query, Kind::Audience, Limits::default()).expect(query);
        let place = |e: &QueryError| query[e.offset..e.offset + e.length].to_owned();
        plan.unseen(known).into_iter().map(|e| (place(&e), e.message, e.suggestion)).collect()
    }

    fn known() -> Known {
        let event = |name: &str, properties: &[&str]| {
            (name.to_owned(), Some(properties.iter().map(|p| (*p).to_owned()).collect()))
        };
        Known {
            events: [event("Order Completed", &["total", "products"]), event("Cart Viewed", &[])].into(),
            has_more_events: false,
            traits: Some(vec!["plan".to_owned(), "first_name".to_owned()]),
            traits_of_users: None,
        }
    }

    #[test]
    fn near_misses_are_told_at_their_places() {
        let found = unseen(
            "event('Order Complete').where(property('totl') > 1).count() >= 1 AND trait('paln') = 1",
            &known(),
        );
        let expected = [
            (
                "'Order Complete'",
                "no event named \"Order Complete\" has been seen; did you mean `Order Completed`?",
                "Order Completed",
            ),
            ("'paln'", "no trait named \"paln\" has been seen; did you mean `plan`?", "plan"),
        ];
        let found: Vec<_> =
            found.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_deref().unwrap_or(""))).collect();
        assert_eq!(found, expected);
        let found =
            unseen("event('Order Completed').where(property('totl') > 1).sum(property('tax')) > 1", &known());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].1.contains("with a property \"totl\"; did you mean `total`?"), "{found:?}");
        assert_eq!((found[1].0.as_str(), &found[1].2), ("'tax'", &None));
    }

    #[test]
    fn what_has_been_seen_or_may_have_been_is_not_told() {
        for query in [
            "event('Order Completed').where(property('total') > 1 AND any_item('products', property('sku') = 1)) >= 1",
            "event('Order *').where(property('x') = 1) >= 1",
            "event('*') >= 1",
            "trait('firstName') = 'a' OR trait('first_name') = 'b' OR trait('plan.x') = 1",
            "event('Order Completed').where(event('Cart Viewed').where(property(parent: 'total') = property(parent: 'total')) >= 1) >= 1",
        ] {
            assert_eq!(unseen(query, &known()), [], "{query}");
        }
        let open = Known { has_more_events: true, traits: None, ..known() };
        assert_eq!(unseen("event('X') >= 1 AND trait('y') = 1", &open), []);
        assert_eq!(
            unseen("event('X *') >= 1", &known())[0].1,
            "no event whose name fits \"X *\" has been seen"
        );
    }
}
