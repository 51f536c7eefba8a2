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

/// Runs cases and writes their lines.
pub(crate) struct Timer<'a, W> {
    options: &'a Options,
    out: W,
}

impl<'a, W: Write> Timer<'a, W> {
    pub(crate) fn new(options: &'a Options, out: W) -> Self {
        Self { options, out }
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
        let seconds = median(self.options.per_case, prepare()?)?;
        let (unit, work) = match work {
            Work::Operations(count) => ("gops", count),
            Work::Bytes(count) => ("gbps", count),
        };
        let rate = work as f64 / seconds / 1e9;
        writeln!(
            self.out,
            r#"{{"system":"ndarray-quant","op":"{op}","shape":{shape:?},"threads":{threads},"sec":{seconds:.9e},"{unit}":{rate:.4},"impl":"{kernel}"}}"#,
            threads = self.options.threads,
            kernel = kernel_name(),
        )?;
        self.out.flush()?;
        Ok(())
    }
}

/// Returns the median time of a call in seconds. Each sample repeats the call for about two milliseconds.
fn median(at_least: Duration, mut call: impl FnMut() -> ndarray_quant::Result<()>) -> ndarray_quant::Result<f64> {
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
    samples.sort_by(f64::total_cmp);
    Ok(samples[samples.len() / 2])
}
