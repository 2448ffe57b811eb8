//! Query text in its one canonical spelling and layout.
//!
//! Works on tokens: the same words in the same order, so the meaning cannot change, and comments keep their places behind
//! the words they follow. The layout depends on the words and comments alone, never on the white space there was, so
//! laying out twice is laying out once.

use super::lexer::{Comment, Token};

/// Lines are not longer, where they can be broken.
const WIDTH: usize = 100;
const INDENT: usize = 4;

/// One token in its canonical spelling, and the comments that follow it.
struct Piece {
    text: String,
    kind: Kind,
    comments: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    And,
    Or,
    /// NOT, ANY, ALL and comparisons.
    Operator,
    Open,
    Close,
    Comma,
    Colon,
    Dot,
    /// The name of a function or method.
    Name,
    /// Everything else.
    Atom,
}

/// Pieces with their parentheses closed.
enum Node {
    Piece(Piece),
    Group { open: Piece, inner: Vec<Node>, close: Piece },
}

/// Lays out a query that has been read without an error.
pub(super) fn layout(tokens: &[Token], comments: &[Comment]) -> String {
    let follows = |place: usize| {
        let of = comments.iter().filter(move |comment| comment.before == place);
        of.map(|comment| comment.text.clone()).collect::<Vec<_>>()
    };
    let mut pieces: Vec<Piece> = Vec::with_capacity(tokens.len());
    for (place, token) in tokens.iter().enumerate() {
        let next = tokens.get(place + 1);
        let before = place.checked_sub(1).and_then(|before| tokens.get(before));
        let Some((text, kind)) = spell(token, before, next) else { continue };
        pieces.push(Piece { text, kind, comments: follows(place + 1) });
    }
    let mut pieces = pieces.into_iter();
    let nodes = group(&mut pieces).0;
    let mut writer = Writer::default();
    writer.comments(&follows(0), 0);
    writer.sequence(&nodes.iter().collect::<Vec<_>>(), 0);
    writer.finish()
}

fn spell(token: &Token, before: Option<&Token>, next: Option<&Token>) -> Option<(String, Kind)> {
    Some(match token {
        Token::End => return None,
        Token::String(text) => (format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")), Kind::Atom),
        Token::Number(number) => (number.to_string(), Kind::Atom),
        Token::Date(text) => (text.clone(), Kind::Atom),
        Token::Word(word) => match word.as_str() {
            "and" => ("AND".to_owned(), Kind::And),
            "or" => ("OR".to_owned(), Kind::Or),
            "not" | "any" | "all" => (word.to_uppercase(), Kind::Operator),
            _ if matches!(next, Some(Token::Symbol("("))) => (word.clone(), Kind::Name),
            _ => match before {
                Some(Token::Number(number)) => (unit(word, number.to_string() == "1"), Kind::Atom),
                _ => (word.clone(), Kind::Atom),
            },
        },
        Token::Symbol(symbol) => {
            let (text, kind) = match *symbol {
                "&&" => ("AND", Kind::And),
                "||" => ("OR", Kind::Or),
                "!" => ("NOT", Kind::Operator),
                "==" => ("=", Kind::Operator),
                "(" | "[" => (*symbol, Kind::Open),
                ")" | "]" => (*symbol, Kind::Close),
                "," => (",", Kind::Comma),
                ":" => (":", Kind::Colon),
                "." => (".", Kind::Dot),
                other => (other, Kind::Operator),
            };
            (text.to_owned(), kind)
        }
    })
}

/// `1 day`, `7 days`; a word behind a number that is no unit stays as it is.
fn unit(word: &str, is_one: bool) -> String {
    let singular = word.strip_suffix('s').unwrap_or(word);
    match (word, is_one) {
        ("as", _) => word.to_owned(),
        (_, true) => singular.to_owned(),
        (_, false) => format!("{singular}s"),
    }
}

/// The nodes up to the parenthesis that closes them, and that.
fn group(pieces: &mut impl Iterator<Item = Piece>) -> (Vec<Node>, Option<Piece>) {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        match piece.kind {
            Kind::Close => return (nodes, Some(piece)),
            Kind::Open => {
                let (inner, close) = group(pieces);
                match close {
                    Some(close) => nodes.push(Node::Group { open: piece, inner, close }),
                    // A query without errors has none left open.
                    None => nodes.extend(inner),
                }
            }
            _ => nodes.push(Node::Piece(piece)),
        }
    }
    (nodes, None)
}

impl Node {
    const fn kind(&self) -> Kind {
        match self {
            Self::Piece(piece) => piece.kind,
            Self::Group { open, .. } => open.kind,
        }
    }

    /// In one line, without comments.
    fn flat(&self, out: &mut String) {
        match self {
            Self::Piece(piece) => out.push_str(&piece.text),
            Self::Group { open, inner, close } => {
                out.push_str(&open.text);
                out.push_str(&flat(inner.iter()));
                out.push_str(&close.text);
            }
        }
    }

    fn last(&self) -> &Piece {
        match self {
            Self::Piece(piece) => piece,
            Self::Group { close, .. } => close,
        }
    }

    /// Whether there are comments in it, apart from those behind it.
    fn has_comments(&self) -> bool {
        match self {
            Self::Piece(_) => false,
            Self::Group { open, inner, .. } => {
                !open.comments.is_empty()
                    || inner.iter().any(|node| node.has_comments() || !node.last().comments.is_empty())
            }
        }
    }
}

fn flat<'n>(nodes: impl Iterator<Item = &'n Node>) -> String {
    let mut out = String::new();
    let mut before = None;
    for node in nodes {
        if before.is_some_and(|before| is_spaced(before, node.kind())) {
            out.push(' ');
        }
        node.flat(&mut out);
        // Behind its closing parenthesis a group is like a word.
        before = Some(if node.kind() == Kind::Open { Kind::Atom } else { node.kind() });
    }
    out
}

const fn is_spaced(before: Kind, after: Kind) -> bool {
    !matches!(
        (before, after),
        (Kind::Dot, _) | (_, Kind::Dot | Kind::Comma | Kind::Colon) | (Kind::Name, Kind::Open)
    )
}

#[derive(Default)]
struct Writer {
    out: String,
    column: usize,
    /// The line is to be ended before anything else is written.
    ended: bool,
}

impl Writer {
    fn finish(mut self) -> String {
        self.out.truncate(self.out.trim_end().len());
        self.out
    }

    fn line(&mut self, indent: usize) {
        self.ended = false;
        self.out.truncate(self.out.trim_end_matches(' ').len());
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out.push_str(&" ".repeat(indent));
        self.column = indent;
    }

    fn text(&mut self, text: &str, indent: usize) {
        if self.ended {
            self.line(indent);
        }
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn space(&mut self) {
        if !self.ended && !self.out.ends_with([' ', '\n']) && !self.out.is_empty() {
            self.out.push(' ');
            self.column += 1;
        }
    }

    fn comments(&mut self, comments: &[String], indent: usize) {
        for comment in comments {
            if self.ended {
                self.line(indent);
            }
            self.space();
            self.text(&format!("-- {comment}"), indent);
            self.out.truncate(self.out.trim_end().len());
            self.ended = true;
        }
    }

    /// Whether the nodes can be written behind what stands in this line.
    fn fits(&self, nodes: &[&Node]) -> bool {
        let Some((last, others)) = nodes.split_last() else { return true };
        let column = if self.ended { 0 } else { self.column };
        !last.has_comments()
            && others.iter().all(|node| !node.has_comments() && node.last().comments.is_empty())
            && column + flat(nodes.iter().copied()).chars().count() <= WIDTH
    }

    fn sequence(&mut self, nodes: &[&Node], indent: usize) {
        if self.fits(nodes) {
            self.text(&flat(nodes.iter().copied()), indent);
            if let Some(last) = nodes.last() {
                self.comments(&last.last().comments, indent);
            }
            return;
        }
        for (junction, deeper) in [(Kind::Or, INDENT), (Kind::And, 0)] {
            if nodes.iter().any(|node| node.kind() == junction) {
                return self.junction(nodes, junction, indent, deeper);
            }
        }
        if nodes.iter().any(|node| node.kind() == Kind::Comma) {
            return self.list(nodes, indent);
        }
        self.chain(nodes, indent);
    }

    /// Each operand in a line of its own; those of AND inside of OR further in.
    fn junction(&mut self, nodes: &[&Node], junction: Kind, indent: usize, deeper: usize) {
        let mut rest = nodes;
        while let Some(at) = rest.iter().position(|node| node.kind() == junction) {
            let (operand, behind) = rest.split_at(at);
            self.sequence(operand, indent + deeper);
            self.line(indent);
            if let Some((word, behind)) = behind.split_first() {
                word.flat_into(self, indent);
                rest = behind;
            }
        }
        self.sequence(rest, indent + deeper);
    }

    fn list(&mut self, nodes: &[&Node], indent: usize) {
        let mut rest = nodes;
        while let Some(at) = rest.iter().position(|node| node.kind() == Kind::Comma) {
            let (item, behind) = rest.split_at(at);
            self.sequence(item, indent);
            if let Some((comma, behind)) = behind.split_first() {
                self.ended = self.ended && !item.last().is_none_or(|node| node.last().comments.is_empty());
                self.text(",", indent);
                self.comments(&comma.last().comments, indent);
                rest = behind;
            }
            if !rest.is_empty() {
                self.line(indent);
            }
        }
        self.sequence(rest, indent);
    }

    /// One operand: methods go to lines of their own, and what is in parentheses further in.
    fn chain(&mut self, nodes: &[&Node], indent: usize) {
        let breaks = nodes.iter().filter(|node| node.kind() == Kind::Dot).count() > 1;
        let (mut before, mut inside) = (None, indent);
        for node in nodes {
            if breaks && node.kind() == Kind::Dot {
                inside = indent + INDENT;
                self.line(inside);
            } else if before.is_some_and(|before| is_spaced(before, node.kind())) {
                self.space();
            }
            self.node(node, inside);
            before = Some(if node.kind() == Kind::Open { Kind::Atom } else { node.kind() });
        }
    }

    fn node(&mut self, node: &Node, indent: usize) {
        match node {
            Node::Group { open, inner, close }
                if !self.fits(&[node]) && (!inner.is_empty() || node.has_comments()) =>
            {
                self.text(&open.text, indent);
                self.comments(&open.comments, indent + INDENT);
                self.line(indent + INDENT);
                self.sequence(&inner.iter().collect::<Vec<_>>(), indent + INDENT);
                self.line(indent);
                self.text(&close.text, indent);
                self.comments(&close.comments, indent);
            }
            other => {
                self.text(&flat(std::iter::once(other)), indent);
                self.comments(&other.last().comments, indent);
            }
        }
    }
}

impl Node {
    /// Writes a word that stands between two operands.
    fn flat_into(&self, writer: &mut Writer, indent: usize) {
        let mut text = String::new();
        self.flat(&mut text);
        writer.text(&text, indent);
        writer.comments(&self.last().comments, indent);
        writer.space();
    }
}
