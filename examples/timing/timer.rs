//! The median of repeated calls, and its line of JSON.

use std::io::Write;
use std::time::{Duration, Instant};

use ndarray_quant::gemm::kernel_name;

use crate::options::Options;
use crate::program::Result;

/// The work done by one call.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Operations, two per multiply and add.
    Operations(usize),
    /// Bytes read and written at the interface.
    Bytes(usize),
}

/// Runs cases and writes their lines: at once, or after all rounds.
pub(crate) struct Timer<'a, W> {
    options: &'a Options,
    out: W,
    /// The cases of `--rounds`, in the order of the first round.
    cases: Vec<Case>,
}

struct Case {
    op: String,
    shape: Vec<usize>,
    work: Work,
    /// The median time of a call in seconds, round by round.
    rounds: Vec<f64>,
}

impl<'a, W: Write> Timer<'a, W> {
    pub(crate) fn new(options: &'a Options, out: W) -> Self {
        Self { options, out, cases: Vec::new() }
    }

    /// Times the call that `prepare` returns, unless the command line leaves `op` out.
    pub(crate) fn case<F: FnMut() -> ndarray_quant::Result<()>>(
        &mut self,
        op: &str,
        shape: &[usize],
        work: Work,
        prepare: impl FnOnce() -> ndarray_quant::Result<F>,
    ) -> Result {
        if !format!("{op} {shape:?}").contains(&self.options.only) {
            return Ok(());
        }
        let seconds = median_time(self.options.per_case, prepare()?)?;
        if self.options.rounds.is_none() {
            return self.write(op, shape, work, seconds, "");
        }
        match self.cases.iter_mut().find(|case| case.op == op && case.shape == shape) {
            Some(case) => case.rounds.push(seconds),
            None => self.cases.push(Case { op: op.into(), shape: shape.into(), work, rounds: vec![seconds] }),
        }
        Ok(())
    }

    /// Writes the lines of all rounds. Other load on the machine only adds time, so `sec` is the best round.
    pub(crate) fn finish(mut self) -> Result {
        for mut case in std::mem::take(&mut self.cases) {
            let median = median(&mut case.rounds);
            let best = case.rounds[0];
            let fields = format!(r#""best":{best:.9e},"median":{median:.9e},"rounds":{},"#, case.rounds.len());
            self.write(&case.op, &case.shape, case.work, best, &fields)?;
        }
        Ok(())
    }

    fn write(&mut self, op: &str, shape: &[usize], work: Work, seconds: f64, fields: &str) -> Result {
        let (unit, work) = match work {
            Work::Operations(count) => ("gops", count),
            Work::Bytes(count) => ("gbps", count),
        };
        let rate = work as f64 / seconds / 1e9;
        writeln!(
            self.out,
            r#"{{"system":"ndarray-quant","op":"{op}","shape":{shape:?},"threads":{threads},"sec":{seconds:.9e},{fields}"{unit}":{rate:.4},"impl":"{kernel}"}}"#,
            threads = self.options.threads,
            kernel = kernel_name(),
        )?;
        self.out.flush()?;
        Ok(())
    }
}

/// Returns the median time of a call in seconds. Each sample repeats the call for about two milliseconds.
fn median_time(at_least: Duration, mut call: impl FnMut() -> ndarray_quant::Result<()>) -> ndarray_quant::Result<f64> {
    const WARM_UP: usize = 3;
    const SAMPLES: usize = 5;
    const SAMPLE: f64 = 2e-3;
    let mut seconds = |calls: usize| -> ndarray_quant::Result<f64> {
        let start = Instant::now();
        (0..calls).try_for_each(|_| call())?;
        Ok(start.elapsed().as_secs_f64() / calls as f64)
    };
    seconds(WARM_UP)?;
    let calls = ((SAMPLE / seconds(1)?.max(1e-7)) as usize).max(1);
    let (mut samples, start) = (Vec::new(), Instant::now());
    while start.elapsed() < at_least || samples.len() < SAMPLES {
        samples.push(seconds(calls)?);
    }
    Ok(median(&mut samples))
}

/// Sorts the samples, of which there is at least one.
fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
