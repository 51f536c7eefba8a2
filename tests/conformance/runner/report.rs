//! Counts verdicts and prints the table.

use std::collections::BTreeMap;
use std::fmt;

use super::case::Description;
use super::{Outcome, Stop};

/// Counts of passed, failed and uncovered cases of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) not_covered: usize,
}

impl Counts {
    fn add(&mut self, verdict: &Outcome<()>) {
        match verdict {
            Ok(()) => self.passed += 1,
            Err(Stop::Failed(_)) => self.failed += 1,
            Err(Stop::NotCovered(_)) => self.not_covered += 1,
        }
    }

    fn sum<'a>(counts: impl Iterator<Item = &'a Counts>) -> Counts {
        counts.fold(Counts::default(), |a, b| Counts {
            passed: a.passed + b.passed,
            failed: a.failed + b.failed,
            not_covered: a.not_covered + b.not_covered,
        })
    }

    fn all(&self) -> usize {
        self.passed + self.failed + self.not_covered
    }
}

/// The cases of one operation of one source.
#[derive(Debug, Default)]
struct Row {
    required: Counts,
    informative: Counts,
    /// The features that are not covered, with counts.
    missing: BTreeMap<String, usize>,
}

/// The results of all cases.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: BTreeMap<(String, String), Row>,
    failures: Vec<String>,
    differences: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, case: &Description, verdict: Outcome<()>) {
        let row = self.rows.entry((case.source.clone(), case.op.clone())).or_default();
        let informative = case.is_informative();
        if informative {
            row.informative.add(&verdict)
        } else {
            row.required.add(&verdict)
        }
        match verdict {
            Ok(()) => {}
            Err(Stop::NotCovered(what)) => *row.missing.entry(what).or_default() += 1,
            Err(Stop::Failed(why)) if informative => self.differences.push(format!("{}: {why}", case.id)),
            Err(Stop::Failed(why)) => self.failures.push(format!("{}: {why}", case.id)),
        }
    }

    /// Leaves out informative cases, which need not pass.
    pub(crate) fn total(&self) -> Counts {
        Counts::sum(self.rows.values().map(|row| &row.required))
    }

    /// Source, operation and counts, in order.
    #[allow(dead_code, reason = "the test asks for it, the example prints the whole report")]
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&str, &str, Counts)> {
        self.rows.iter().map(|((source, op), row)| (source.as_str(), op.as_str(), row.required))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12}{:<40}{:>7}{:>7}{:>12}  informative",
            "source", "operation", "passed", "failed", "not covered"
        )?;
        for ((source, op), row) in &self.rows {
            let Counts { passed, failed, not_covered } = row.required;
            write!(f, "{source:<12}{op:<40}{passed:>7}{failed:>7}{not_covered:>12}")?;
            match row.informative.all() {
                0 => writeln!(f)?,
                all if row.informative.not_covered == all => writeln!(f, "  {all} not covered")?,
                all => writeln!(f, "  {} of {all} agree", row.informative.passed)?,
            }
        }
        list(f, "not covered", self.rows.iter().filter(|(_, row)| !row.missing.is_empty()).map(not_covered))?;
        let informative = Counts::sum(self.rows.values().map(|row| &row.informative));
        writeln!(
            f,
            "\ninformative (quirks that are not required, not in the total): {} agree, {} differ, {} not covered",
            informative.passed, informative.failed, informative.not_covered
        )?;
        self.differences.iter().try_for_each(|difference| writeln!(f, "  {difference}"))?;
        list(f, "FAILED", self.failures.iter().cloned())?;
        let Counts { passed, failed, not_covered } = self.total();
        write!(f, "\n{passed} passed, {failed} failed, {not_covered} not covered")
    }
}

fn list(f: &mut fmt::Formatter<'_>, title: &str, lines: impl Iterator<Item = String>) -> fmt::Result {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        writeln!(f, "\n{title}:")?;
    }
    lines.try_for_each(|line| writeln!(f, "  {line}"))
}

fn not_covered(((source, op), row): (&(String, String), &Row)) -> String {
    let reasons: Vec<_> = row.missing.iter().map(|(what, count)| format!("{what} ({count})")).collect();
    format!("{source}/{op}: {}: {}", row.missing.values().sum::<usize>(), reasons.join(", "))
}
