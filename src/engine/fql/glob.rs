//! Patterns of `match`: `*`, `?`, `[abc]`, `[a-z]` and `\x`, over the whole text, case and all.

/// A pattern.
#[derive(Debug)]
pub(super) struct Glob {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// `*`: any text, also none.
    Any,
    /// `?`: one character.
    One,
    /// One of these, from and to.
    OneOf(Vec<(char, char)>),
    /// This one.
    Exactly(char),
}

impl Step {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::OneOf(ranges) => ranges.iter().any(|&(from, to)| from <= c && c <= to),
            Self::Exactly(exactly) => *exactly == c,
        }
    }
}

impl Glob {
    /// Reads a pattern, or says what is wrong with it.
    pub(super) fn parse(pattern: &str) -> Result<Self, &'static str> {
        let mut steps = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            steps.push(match c {
                '*' => Step::Any,
                '?' => Step::One,
                '[' => Step::OneOf(ranges(&mut chars)?),
                '\\' => Step::Exactly(
                    chars.next().ok_or("`\\` stands at its end; it escapes the next character")?,
                ),
                _ => Step::Exactly(c),
            });
        }
        Ok(Self { steps })
    }

    /// Whether the whole of a text is like that. Takes at most (length of the text × length of the pattern) steps.
    pub(super) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut step) = (0, 0);
        // The last `*`, and how much of the text it takes.
        let mut star = None;
        loop {
            match (self.steps.get(step), text.get(at)) {
                (None, None) => return true,
                (Some(Step::Any), _) => {
                    star = Some((step, at));
                    step += 1;
                }
                (Some(single), Some(&c)) if single.takes(c) => {
                    at += 1;
                    step += 1;
                }
                _ => match star {
                    Some((star_step, star_at)) if star_at < text.len() => {
                        star = Some((star_step, star_at + 1));
                        at = star_at + 1;
                        step = star_step + 1;
                    }
                    _ => return false,
                },
            }
        }
    }
}

fn ranges(chars: &mut std::str::Chars<'_>) -> Result<Vec<(char, char)>, &'static str> {
    const NO_END: &str = "`[` has no `]`; to match it literally write `\\[`";
    let literal = |chars: &mut std::str::Chars<'_>, c: char| if c == '\\' { chars.next() } else { Some(c) };
    let mut found = Vec::new();
    loop {
        let c = chars.next().ok_or(NO_END)?;
        if c == ']' {
            return if found.is_empty() { Err("`[]` names no character") } else { Ok(found) };
        }
        let from = literal(chars, c).ok_or(NO_END)?;
        let mut ahead = chars.clone();
        let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|next| next != ']');
        if is_range {
            chars.next();
            let c = chars.next().ok_or(NO_END)?;
            let to = literal(chars, c).ok_or(NO_END)?;
            if to < from {
                return Err("the end of a range lies before its start");
            }
            found.push((from, to));
        } else {
            found.push((from, from));
        }
    }
}
