//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Times matrix products of codes and of floats, conversions and convolutions, and prints a line of JSON for each.

Usage: cargo run --release --example timing -- [OPTIONS] [SECONDS] < shapes.txt
       cargo run --release --example timing -- --chart CSV SVG

Each line of the standard input is a product: ROWS DEPTH COLUMNS.

Arguments:
      [SECONDS]    how long each case is repeated [default: 0.25]

Options:
      --conv       convolutions of fixed shapes instead; the standard input is not read
      --threads N  threads of a pool to split products over; more than 1 needs --features rayon [default: 1]
      --rounds N   run all cases N times in turn, each for SECONDS, and print the best and the median of each case at
                   the end [default: each case once, printed at once]
      --only TEXT  only the operations whose name and shape contain this
      --chart CSV SVG
                   time nothing; draw ratios to other libraries, read from CSV, as a bar chart
  -h, --help       print this
";

pub(crate) struct Options {
    pub(crate) per_case: Duration,
    pub(crate) threads: usize,
    /// None: each case once.
    pub(crate) rounds: Option<usize>,
    pub(crate) only: String,
    pub(crate) convolutions: bool,
    /// The file with ratios to other libraries, and the chart to draw from it.
    pub(crate) chart: Option<[PathBuf; 2]>,
}

/// None, if help is asked for.
pub(crate) fn parse() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        per_case: Duration::from_millis(250),
        threads: 1,
        rounds: None,
        only: String::new(),
        convolutions: false,
        chart: None,
    };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(seconds) => {
                let seconds = seconds.parse_with(|s| s.parse::<f64>().map_err(|e| e.to_string()))?;
                options.per_case = Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
            }
            Arg::Long("threads") => {
                options.threads = parser.value()?.parse()?;
                if options.threads == 0 {
                    return Err("--threads 0: there is at least one thread".into());
                }
            }
            Arg::Long("rounds") => {
                let rounds = parser.value()?.parse()?;
                if rounds == 0 {
                    return Err("--rounds 0: there is at least one round".into());
                }
                options.rounds = Some(rounds);
            }
            Arg::Long("chart") => options.chart = Some([parser.value()?.parse()?, parser.value()?.parse()?]),
            Arg::Long("conv") => options.convolutions = true,
            Arg::Long("only") => options.only = parser.value()?.string()?,
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(options))
}
