//! Tokens → tree, by recursive descent. Depth is bounded, and so is all that walks the tree later.

use serde_json::Value;

use super::BYTES_MAX;
use super::ast::{Expr, OPERATORS, Operator, Type};
use super::error::FqlError;
use super::functions::{FUNCTIONS, Function};
use super::glob::Glob;
use super::lexer::{self, Token};

/// Parentheses, calls, lists and `!` inside of each other.
const NESTING_MAX: usize = 32;

/// Reads a whole filter.
pub(super) fn parse(text: &str) -> Result<Expr, FqlError> {
    if text.len() > BYTES_MAX {
        let message = format!("a filter may have at most {BYTES_MAX} bytes, this one has {}", text.len());
        return Err(FqlError::at(text, 0, message));
    }
    let tokens = lexer::tokens(text)?;
    let mut parser = Parser { text, tokens, at: 0, depth: 0 };
    let expr = parser.or()?;
    if *parser.peek() != Token::End {
        let message = format!("unexpected {}", parser.found());
        return Err(parser.error(message).expecting(&["and", "or", "end of the filter"]));
    }
    parser.require(&expr, 0, &[Type::Bool], "a filter")?;
    Ok(expr)
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token, usize)>,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn offset(&self) -> usize {
        self.tokens.get(self.at).map_or(self.text.len(), |(_, offset)| *offset)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn eat(&mut self, wanted: &Token) -> bool {
        let found = self.peek() == wanted;
        self.at += usize::from(found);
        found
    }

    fn error(&self, message: impl Into<String>) -> FqlError {
        FqlError::at(self.text, self.offset(), message)
    }

    /// The next token, as an error names it.
    fn found(&self) -> String {
        match self.peek() {
            Token::Keyword(word) => format!("`{word}`"),
            Token::Path(keys, _) => format!("`{}`", keys.join(".")),
            Token::Literal(value) => format!("`{value}`"),
            Token::Symbol(symbol) => format!("`{symbol}`"),
            Token::End => "the end of the filter".to_owned(),
        }
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), FqlError> {
        if self.eat(&Token::Symbol(symbol)) {
            return Ok(());
        }
        Err(self.error(format!("expected `{symbol}`, found {}", self.found())).expecting(&[symbol]))
    }

    /// Refuses an expression that can never be what its place needs. Null and fields may always be.
    fn require(&self, expr: &Expr, offset: usize, types: &[Type], place: &str) -> Result<(), FqlError> {
        let found = expr.type_of();
        if matches!(found, Type::Any | Type::Null) || types.contains(&found) {
            return Ok(());
        }
        let wanted = types.iter().map(|wanted| wanted.name()).collect::<Vec<_>>().join(" or ");
        Err(FqlError::at(self.text, offset, format!("{place} needs {wanted}, this is {}", found.name())))
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, FqlError>) -> Result<T, FqlError> {
        if self.depth == NESTING_MAX {
            return Err(self.error(format!("a filter may be nested {NESTING_MAX} deep at most")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn or(&mut self) -> Result<Expr, FqlError> {
        self.junction("or", Self::and, Expr::Or)
    }

    fn and(&mut self) -> Result<Expr, FqlError> {
        self.junction("and", Self::unary, Expr::And)
    }

    fn junction(
        &mut self,
        word: &'static str,
        operand: impl Fn(&mut Self) -> Result<Expr, FqlError>,
        make: impl FnOnce(Vec<Expr>) -> Expr,
    ) -> Result<Expr, FqlError> {
        let mut offset = self.offset();
        let first = operand(self)?;
        if *self.peek() != Token::Keyword(word) {
            return Ok(first);
        }
        let place = format!("`{word}`");
        self.require(&first, offset, &[Type::Bool], &place)?;
        let mut operands = vec![first];
        while self.eat(&Token::Keyword(word)) {
            offset = self.offset();
            let next = operand(self)?;
            self.require(&next, offset, &[Type::Bool], &place)?;
            operands.push(next);
        }
        Ok(make(operands))
    }

    fn unary(&mut self) -> Result<Expr, FqlError> {
        if !self.eat(&Token::Symbol("!")) {
            return self.comparison();
        }
        let offset = self.offset();
        let operand = self.deeper(Self::unary)?;
        self.require(&operand, offset, &[Type::Bool], "`!`")?;
        Ok(Expr::Not(Box::new(operand)))
    }

    fn operator(&mut self) -> Option<Operator> {
        let (Token::Symbol(text) | Token::Keyword(text)) = self.peek() else { return None };
        let (_, operator) = *OPERATORS.iter().find(|(symbol, _)| symbol == text)?;
        self.at += 1;
        Some(operator)
    }

    fn comparison(&mut self) -> Result<Expr, FqlError> {
        let left_offset = self.offset();
        let left = self.value()?;
        let Some(operator) = self.operator() else { return Ok(left) };
        let right_offset = self.offset();
        let right = self.value()?;
        match operator {
            Operator::Equal | Operator::NotEqual => {}
            Operator::In => self.require(&right, right_offset, &[Type::List], "the right side of `in`")?,
            _ => {
                self.require(&left, left_offset, &[Type::Number], "this comparison")?;
                self.require(&right, right_offset, &[Type::Number], "this comparison")?;
            }
        }
        let at = self.at;
        if self.operator().is_some() {
            self.at = at;
            return Err(self
                .error("comparisons cannot be chained; join two with `and`")
                .expecting(&["and", "or"]));
        }
        Ok(Expr::Comparison(Box::new(left), operator, Box::new(right)))
    }

    fn value(&mut self) -> Result<Expr, FqlError> {
        if self.eat(&Token::Symbol("(")) {
            let inner = self.deeper(Self::or)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.eat(&Token::Symbol("[")) {
            return self.list();
        }
        match self.peek() {
            Token::Literal(_) | Token::Path(..) => {}
            _ => {
                let message = format!("expected a field, a value or a function, found {}", self.found());
                return Err(self.error(message));
            }
        }
        let offset = self.offset();
        match self.next() {
            Token::Literal(value) => Ok(Expr::Literal(value)),
            Token::Path(keys, is_word) if *self.peek() == Token::Symbol("(") => {
                self.call(&keys.join("."), is_word, offset)
            }
            Token::Path(keys, _) => Ok(Expr::Path(keys)),
            _ => Err(self.error("expected a value")),
        }
    }

    fn list(&mut self) -> Result<Expr, FqlError> {
        let mut items = Vec::new();
        if self.eat(&Token::Symbol("]")) {
            return Ok(Expr::Literal(Value::Array(items)));
        }
        loop {
            let Token::Literal(_) = self.peek() else {
                let message =
                    format!("a list has strings, numbers, true, false or null, found {}", self.found());
                return Err(self.error(message));
            };
            if let Token::Literal(item) = self.next() {
                items.push(item);
            }
            if self.eat(&Token::Symbol("]")) {
                return Ok(Expr::Literal(Value::Array(items)));
            }
            if !self.eat(&Token::Symbol(",")) {
                let message = format!("expected `,` or `]`, found {}", self.found());
                return Err(self.error(message).expecting(&[",", "]"]));
            }
        }
    }

    fn call(&mut self, name: &str, is_word: bool, offset: usize) -> Result<Expr, FqlError> {
        let known = FUNCTIONS.iter().find(|(known, _)| is_word && *known == name);
        let Some(&(_, function)) = known else {
            return Err(unknown_function(self.text, offset, name));
        };
        self.expect("(")?;
        let mut arguments = Vec::new();
        if !self.eat(&Token::Symbol(")")) {
            loop {
                let at = self.offset();
                let argument = self.deeper(Self::or)?;
                if let Some(types) = function.takes().get(arguments.len()) {
                    self.require(&argument, at, types, &format!("`{name}`"))?;
                    self.check_pattern(function, arguments.len(), &argument, at)?;
                }
                arguments.push(argument);
                if !self.eat(&Token::Symbol(",")) {
                    break;
                }
            }
            self.expect(")")?;
        }
        let wanted = function.takes().len();
        if arguments.len() != wanted {
            let message = format!("`{name}` takes {wanted} in its parentheses, not {}", arguments.len());
            return Err(FqlError::at(self.text, offset, message));
        }
        Ok(Expr::Call(function, arguments))
    }

    fn check_pattern(
        &self,
        function: Function,
        place: usize,
        argument: &Expr,
        at: usize,
    ) -> Result<(), FqlError> {
        match argument {
            Expr::Literal(Value::String(pattern)) if function == Function::Match && place == 1 => {
                let wrong = |why| FqlError::at(self.text, at, format!("this pattern is not right: {why}"));
                Glob::parse(pattern).map(|_| ()).map_err(wrong)
            }
            _ => Ok(()),
        }
    }
}

fn unknown_function(text: &str, offset: usize, name: &str) -> FqlError {
    let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    let near = crate::engine::query::nearest(name, &names)
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    FqlError::at(text, offset, format!("there is no function `{name}`{near}")).expecting(&names)
}
