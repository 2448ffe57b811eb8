//! The results: every round, and of each goal the median of the rounds that count.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use super::goal::Goal;

/// One measurement of a reference and the candidate beside it.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) number: u32,
    pub(super) reference: f64,
    pub(super) candidate: f64,
    pub(super) load_before: f64,
    pub(super) load_after: f64,
    /// It did not begin with more load than is fair.
    pub(super) is_counted: bool,
    pub(super) notes: Vec<(&'static str, f64)>,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.candidate / self.reference
    }

    pub(super) fn line(&self) -> String {
        let Self { number, reference, candidate, load_before, load_after, .. } = self;
        let mut line = format!(
            "round {number}: {} ÷ {} = {:.2}   load {load_before:.1} → {load_after:.1}",
            figure(*candidate),
            figure(*reference),
            self.ratio()
        );
        for (what, value) in &self.notes {
            let _memory = write!(line, "; {what} {value:.1}");
        }
        if !self.is_counted {
            line.push_str("   NOT COUNTED: too much load");
        }
        line
    }
}

/// Rates have no use for decimals, milliseconds have.
fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:>8.2}") } else { format!("{value:>8.0}") }
}

/// All rounds of all goals.
#[derive(Debug, Default)]
pub(super) struct Report {
    rounds: BTreeMap<Goal, Vec<Round>>,
}

/// Median, least, most of the ratios that count.
fn summary(rounds: &[Round]) -> Option<(f64, f64, f64)> {
    let mut ratios: Vec<f64> = rounds.iter().filter(|round| round.is_counted).map(Round::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (*ratios.first()?, *ratios.last()?);
    let (below, above) = (ratios.get((ratios.len() - 1) / 2)?, ratios.get(ratios.len() / 2)?);
    Some((f64::midpoint(*below, *above), least, most))
}

impl Report {
    pub(super) fn add(&mut self, goal: Goal, round: Round) {
        self.rounds.entry(goal).or_default().push(round);
    }

    pub(super) fn table(&self) -> String {
        let mut out = String::new();
        for (goal, rounds) in &self.rounds {
            let _memory = writeln!(out, "{}", goal.title());
            for round in rounds {
                let _memory = writeln!(out, "  {}", round.line());
            }
            let _memory = match summary(rounds) {
                Some((median, least, most)) => {
                    let (bound, (enough, aim)) = (goal.bound(), goal.bound().figures());
                    let met = |figure| if bound.holds(median, figure) { "met" } else { "MISSED" };
                    writeln!(
                        out,
                        "  median {median:.2} ({least:.2}–{most:.2}), {} {enough}: {}; aim {aim}: {}",
                        bound.word(),
                        met(enough),
                        met(aim)
                    )
                }
                None => writeln!(out, "  no round counts: there was too much load (--force counts them all)"),
            };
        }
        out
    }

    pub(super) fn json(&self) -> String {
        let goals: Vec<_> = self
            .rounds
            .iter()
            .map(|(goal, rounds)| {
                let all: Vec<_> = rounds
                    .iter()
                    .map(|round| {
                        let notes: BTreeMap<_, _> = round.notes.iter().copied().collect();
                        json!({
                            "round": round.number, "reference": round.reference, "candidate": round.candidate,
                            "ratio": round.ratio(), "load_before": round.load_before,
                            "load_after": round.load_after, "counted": round.is_counted, "notes": notes,
                        })
                    })
                    .collect();
                let found = summary(rounds);
                json!({
                    "goal": format!("{goal:?}"), "title": goal.title(), 
                    "bound": goal.bound().word(), "enough": goal.bound().figures().0, "aim": goal.bound().figures().1,
                    "median": found.map(|(median, ..)| median), "min": found.map(|(_, least, _)| least),
                    "max": found.map(|(.., most)| most), "rounds": all,
                })
            })
            .collect();
        format!("{:#}\n", json!({ "goals": goals }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rounds_that_count_make_the_median() {
        let round =
            |candidate: f64, is_counted| Round { candidate, reference: 1.0, is_counted, ..Round::default() };
        let rounds = [round(3.0, true), round(1.0, true), round(9.0, false), round(2.0, true)];
        assert_eq!(summary(&rounds), Some((2.0, 1.0, 3.0)));
        assert_eq!(summary(&rounds[2..3]), None);
        assert_eq!(summary(&rounds[..2]), Some((2.0, 1.0, 3.0)));
    }
}
