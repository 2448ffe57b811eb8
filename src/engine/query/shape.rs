//! Where the conditions of a plan stand in its text.

use super::ast::{Expr, ExprKind};
use super::error::Span;

/// Where a condition stands: a tree of the same form as the plan's conditions, so parentheses are no level of their own.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::engine) struct Shape {
    /// The whole condition.
    pub(in crate::engine) span: Span,
    /// The operands of AND, OR and NOT.
    pub(in crate::engine) parts: Vec<Self>,
    /// Of a comparison: its left side, then what that is compared with. Nothing where it has no sides to be seen, as in
    /// `audience('vip')`.
    pub(in crate::engine) sides: Vec<Span>,
}

impl Shape {
    /// The shape of an expression.
    pub(super) fn of(tree: &Expr) -> Self {
        let (mut parts, mut sides) = (Vec::new(), Vec::new());
        match &tree.kind {
            ExprKind::Group(inner) => return Self::of(inner),
            ExprKind::And(operands) | ExprKind::Or(operands) => {
                parts = operands.iter().map(Self::of).collect();
            }
            ExprKind::Not(operand) => parts = vec![Self::of(operand)],
            ExprKind::Comparison(left, _, right) => sides = vec![left.span, right.span],
            ExprKind::Method(base, call) => {
                sides = std::iter::once(base.span).chain(call.arguments.iter().map(|a| a.span)).collect();
            }
            ExprKind::Quantifier(..) | ExprKind::Call(_) | ExprKind::Literal(_) | ExprKind::Error => {}
        }
        Self { span: tree.span, parts, sides }
    }
}
