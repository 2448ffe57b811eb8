//! Tokens → syntax tree, by recursive descent. After an error it goes on behind the next AND, OR or closing
//! parenthesis, so that one answer tells all mistakes.
//!
//! ```text
//! or         := and (OR and)*
//! and        := unary (AND unary)*
//! unary      := (NOT | ANY | ALL) unary | comparison
//! comparison := chain [symbol chain]
//! chain      := primary ('.' name '(' arguments ')')*
//! primary    := literal | name '(' arguments ')' | '(' or ')'
//! argument   := [label ':'] (number unit | or) [AS name]
//! ```

use crate::domain::{Number, Value};

use super::Limits;
use super::ast::{Argument, ArgumentValue, Call, Expr, ExprKind, Name};
use super::error::{ErrorKind, Errors, Span, nearest};
use super::lexer::Token;

/// Calls inside of calls that need no depth of their own (`sum(property('x'))`) are bounded by this factor.
const CALL_DEPTH_FACTOR: usize = 4;

/// Methods in one chain; trees are walked by recursion, so their depth is bounded.
const LONGEST_CHAIN: usize = 50;

/// Units of time and their length in milliseconds.
const UNITS: [(&str, i64); 5] =
    [("second", 1_000), ("minute", 60_000), ("hour", 3_600_000), ("day", 86_400_000), ("week", 604_800_000)];

/// The names offered where a unit is wrong.
const UNIT_NAMES: [&str; 10] =
    ["second", "seconds", "minute", "minutes", "hour", "hours", "day", "days", "week", "weeks"];

/// Calls whose argument is a condition: they count as one level of nesting.
const NESTING_CALLS: [&str; 2] = ["where", "any_item"];

/// What the parser gives up with; the error itself is already recorded.
struct Failed;

type Parsed<T> = Result<T, Failed>;

/// Reads a whole definition.
pub(super) fn parse(tokens: Vec<(Token, Span)>, limits: Limits, errors: &mut Errors) -> Expr {
    let mut parser =
        Parser { tokens, at: 0, nesting: 0, depth: 0, primaries: 0, gave_up: false, limits, errors };
    let expr = parser.or();
    if !matches!(parser.peek(), Token::End) {
        let message = format!("unexpected {}", parser.found());
        let near = parser.near(&["AND", "OR"]);
        parser.error_near(message, &["AND", "OR", ".", "end of the query"], near);
    }
    expr
}

struct Parser<'e> {
    tokens: Vec<(Token, Span)>,
    at: usize,
    nesting: usize,
    depth: usize,
    primaries: usize,
    gave_up: bool,
    limits: Limits,
    errors: &'e mut Errors,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn peek_second(&self) -> &Token {
        self.tokens.get(self.at + 1).map_or(&Token::End, |(token, _)| token)
    }

    fn span(&self) -> Span {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(Span::default(), |(_, span)| *span)
    }

    fn previous_span(&self) -> Span {
        self.tokens.get(self.at.wrapping_sub(1)).map_or(Span::default(), |(_, span)| *span)
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len().saturating_sub(1));
    }

    fn at_word(&self, words: &[&str]) -> bool {
        matches!(self.peek(), Token::Word(word) if words.contains(&word.as_str()))
    }

    fn at_symbol(&self, symbols: &[&str]) -> bool {
        matches!(self.peek(), Token::Symbol(symbol) if symbols.contains(symbol))
    }

    fn eat_symbol(&mut self, symbol: &str) -> bool {
        let found = self.at_symbol(&[symbol]);
        if found {
            self.advance();
        }
        found
    }

    fn expect_symbol(&mut self, symbol: &str, expected: &[&str]) -> Parsed<()> {
        if self.eat_symbol(symbol) {
            return Ok(());
        }
        let message = format!("expected `{symbol}`, found {}", self.found());
        let near = self.near(&["AND", "OR", "AS"]).filter(|near| expected.contains(near));
        self.error_near(message, expected, near);
        Err(Failed)
    }

    /// The next token, as an error names it.
    fn found(&self) -> String {
        match self.peek() {
            Token::Word(word) => format!("`{word}`"),
            Token::String(text) => format!("'{text}'"),
            Token::Number(number) => format!("`{number}`"),
            Token::Date(text) => format!("`{text}`"),
            Token::Symbol(symbol) => format!("`{symbol}`"),
            Token::End => "the end of the query".to_owned(),
        }
    }

    /// The word that was most likely meant by the next token.
    fn near<'w>(&self, words: &[&'w str]) -> Option<&'w str> {
        let Token::Word(word) = self.peek() else { return None };
        nearest(word, words)
    }

    fn error(&mut self, message: String, expected: &[&str]) {
        self.error_near(message, expected, None);
    }

    fn error_near(&mut self, message: String, expected: &[&str], near: Option<&str>) {
        if !self.gave_up {
            self.errors.add_suggesting(ErrorKind::Syntax, self.span(), message, expected, near);
        }
    }

    /// Skips to the next place where an operand of AND or OR could end.
    fn recover(&mut self) -> Expr {
        let start = self.span();
        let mut open = 0_usize;
        loop {
            match self.peek() {
                Token::End => break,
                Token::Symbol("(") => open += 1,
                Token::Symbol(")" | "&&" | "||") if open == 0 => break,
                Token::Symbol(")") => open -= 1,
                Token::Word(word) if open == 0 && matches!(word.as_str(), "and" | "or") => break,
                _ => {}
            }
            self.advance();
        }
        Expr { span: start.to(self.previous_span()), kind: ExprKind::Error }
    }

    /// Runs `parse` one level deeper, or refuses.
    fn nested<T>(&mut self, levels: usize, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let Limits { nesting, .. } = self.limits;
        if self.nesting + levels > nesting || self.depth >= nesting * CALL_DEPTH_FACTOR {
            let message = format!("conditions may be nested at most {nesting} deep");
            self.errors.add(ErrorKind::Limit, self.span(), message);
            // Going on would only tell consequences of this.
            self.gave_up = true;
            self.at = self.tokens.len().saturating_sub(1);
            return Err(Failed);
        }
        self.nesting += levels;
        self.depth += 1;
        let result = parse(self);
        self.nesting -= levels;
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Expr {
        self.junction("or", "||", Self::and, ExprKind::Or)
    }

    fn and(&mut self) -> Expr {
        let operand = |parser: &mut Self| parser.unary().unwrap_or_else(|Failed| parser.recover());
        self.junction("and", "&&", operand, ExprKind::And)
    }

    fn junction(
        &mut self,
        word: &str,
        symbol: &str,
        operand: impl Fn(&mut Self) -> Expr,
        kind: fn(Vec<Expr>) -> ExprKind,
    ) -> Expr {
        let first = operand(self);
        if !self.at_word(&[word]) && !self.at_symbol(&[symbol]) {
            return first;
        }
        let mut span = first.span;
        let mut operands = vec![first];
        while self.at_word(&[word]) || self.at_symbol(&[symbol]) {
            self.advance();
            let next = operand(self);
            span = span.to(next.span);
            operands.push(next);
        }
        Expr { span, kind: kind(operands) }
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if self.at_word(&["not"]) || self.at_symbol(&["!"]) {
            self.advance();
            let operand = self.nested(1, Self::unary)?;
            return Ok(Expr { span: start.to(operand.span), kind: ExprKind::Not(Box::new(operand)) });
        }
        if self.at_word(&["any", "all"]) {
            let keyword = self.name()?;
            let operand = self.nested(1, Self::unary)?;
            let span = start.to(operand.span);
            return Ok(Expr { span, kind: ExprKind::Quantifier(keyword, Box::new(operand)) });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Parsed<Expr> {
        let left = self.chain()?;
        let Token::Symbol(symbol @ ("=" | "==" | "!=" | ">" | ">=" | "<" | "<=")) = *self.peek() else {
            return Ok(left);
        };
        let symbol = Name { text: symbol.to_owned(), span: self.span() };
        self.advance();
        let right = self.chain()?;
        if self.at_symbol(&["=", "==", "!=", ">", ">=", "<", "<="]) {
            self.error("comparisons cannot be chained; join two of them with AND".to_owned(), &["AND", "OR"]);
            return Err(Failed);
        }
        let span = left.span.to(right.span);
        Ok(Expr { span, kind: ExprKind::Comparison(Box::new(left), symbol, Box::new(right)) })
    }

    fn chain(&mut self) -> Parsed<Expr> {
        let mut expr = self.primary()?;
        let mut length = 0;
        while self.eat_symbol(".") {
            length += 1;
            if length > LONGEST_CHAIN {
                let message = format!("at most {LONGEST_CHAIN} methods may follow each other");
                self.errors.add(ErrorKind::Limit, self.span(), message);
                return Err(Failed);
            }
            let call = self.call()?;
            let span = expr.span.to(call.span);
            expr = Expr { span, kind: ExprKind::Method(Box::new(expr), call) };
        }
        Ok(expr)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let span = self.span();
        if let Some(value) = self.literal() {
            self.advance();
            return Ok(Expr { span, kind: ExprKind::Literal(value) });
        }
        if self.eat_symbol("(") {
            let inner = self.nested(1, |parser| Ok(parser.or()))?;
            self.expect_symbol(")", &[")", "AND", "OR"])?;
            let span = span.to(self.previous_span());
            return Ok(Expr { span, kind: ExprKind::Group(Box::new(inner)) });
        }
        if matches!(self.peek(), Token::Word(word) if !is_keyword(word)) {
            self.primaries += 1;
            if self.primaries == self.limits.expressions + 1 {
                let message =
                    format!("a definition may have at most {} expressions", self.limits.expressions);
                self.errors.add(ErrorKind::Limit, span, message);
            }
            let call = self.call()?;
            return Ok(Expr { span: call.span, kind: ExprKind::Call(call) });
        }
        let message = format!("expected a condition or a value, found {}", self.found());
        self.error(message, &["event", "trait", "property", "context", "NOT", "("]);
        Err(Failed)
    }

    fn literal(&self) -> Option<Value> {
        match self.peek() {
            Token::String(text) | Token::Date(text) => Some(Value::from(text.as_str())),
            Token::Number(number) => Some(Value::Number(*number)),
            Token::Word(word) => match word.as_str() {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                "null" => Some(Value::Null),
                _ => None,
            },
            _ => None,
        }
    }

    fn name(&mut self) -> Parsed<Name> {
        let span = self.span();
        let Token::Word(word) = self.peek() else {
            let message = format!("expected a name, found {}", self.found());
            self.error(message, &[]);
            return Err(Failed);
        };
        let name = Name { text: word.clone(), span };
        self.advance();
        Ok(name)
    }

    fn call(&mut self) -> Parsed<Call> {
        let name = self.name()?;
        if !self.eat_symbol("(") {
            let message =
                format!("`{0}` needs parentheses, `{0}(…)`; a string needs single quotes", name.text);
            let near = nearest(&name.text, &["true", "false", "null"]);
            self.errors.add_suggesting(ErrorKind::Syntax, name.span, message, &["("], near);
            return Err(Failed);
        }
        let mut arguments = Vec::new();
        let levels = usize::from(NESTING_CALLS.contains(&name.text.as_str()));
        while !self.at_symbol(&[")"]) {
            arguments.push(self.nested(levels, Self::argument)?);
            if !self.eat_symbol(",") {
                break;
            }
        }
        self.expect_symbol(")", &[",", ")"])?;
        let span = name.span.to(self.previous_span());
        Ok(Call { name, arguments, span })
    }

    fn argument(&mut self) -> Parsed<Argument> {
        let start = self.span();
        let mut label = None;
        if matches!(self.peek(), Token::Word(_)) && matches!(self.peek_second(), Token::Symbol(":")) {
            label = Some(self.name()?);
            self.advance();
        }
        let value = match (self.peek(), self.peek_second()) {
            (Token::Number(number), Token::Word(unit)) if !is_keyword(unit) => {
                let (number, unit) = (*number, unit.clone());
                self.duration(number, &unit).map_or(ArgumentValue::Error, ArgumentValue::Duration)
            }
            (Token::Symbol("["), _) => self.list()?,
            _ => ArgumentValue::Expr(self.or()),
        };
        let mut cast = None;
        if self.at_word(&["as"]) {
            self.advance();
            cast = Some(self.name()?);
        }
        Ok(Argument { label, value, cast, span: start.to(self.previous_span()) })
    }

    /// `7 days` in milliseconds; the number is the present token and the unit the next.
    fn duration(&mut self, number: Number, unit: &str) -> Option<i64> {
        let number_span = self.span();
        self.advance();
        let unit_span = self.span();
        self.advance();
        let singular = unit.strip_suffix('s').unwrap_or(unit);
        let Some((_, length)) = UNITS.iter().find(|(name, _)| *name == singular) else {
            self.errors.add_unknown(unit_span, "unit of time", unit, &UNIT_NAMES);
            return None;
        };
        let Some(count) = number.to_string().parse::<u128>().ok() else {
            let message = format!("a time span is a whole number of {singular}s, not {number}");
            self.errors.add(ErrorKind::Type, number_span, message);
            return None;
        };
        let millis =
            count.checked_mul(length.unsigned_abs().into()).and_then(|millis| i64::try_from(millis).ok());
        let millis = millis.filter(|millis| *millis <= Limits::LONGEST_SPAN);
        if millis.is_none() {
            let message = "this time span is longer than 10,000 years";
            self.errors.add(ErrorKind::Limit, number_span.to(unit_span), message);
        }
        millis
    }

    fn list(&mut self) -> Parsed<ArgumentValue> {
        self.advance();
        let mut items = Vec::new();
        while !self.at_symbol(&["]"]) {
            items.push(self.nested(0, |parser| Ok(parser.or()))?);
            if !self.eat_symbol(",") {
                break;
            }
        }
        self.expect_symbol("]", &[",", "]"])?;
        Ok(ArgumentValue::List(items))
    }
}

fn is_keyword(word: &str) -> bool {
    matches!(word, "and" | "or" | "not" | "any" | "all" | "as")
}
