//! Times products of codes and of floats, convolutions and conversions, for comparison with other systems on the same work.
//!
//! ```text
//! cargo run --release --example timing -- 0.2 < shapes.txt
//! cargo run --release --example timing -- 0.2 --conv
//! cargo run --release --example timing -- 0.05 --rounds 5 < shapes.txt
//! ```
//!
//! Standard input has a product per line: rows, depth and columns, for instance `128 384 1536`. Conversions run at
//! fixed sizes, and so do convolutions, which `--conv` times instead. Each case prints one line of JSON. Its `sec` is the
//! median time of a call in the steady state: weights packed beforehand, results written into caller-provided arrays, one
//! workspace reused. `gemm_f32` is a float network of one pointwise convolution, whose time includes copying its input
//! and its output.
//!
//! With `--rounds N` all cases run in turn, N times, so that other load on the machine slows all of them alike. Each line
//! then has the `best` and the `median` round, and its `sec` is the best.
//!
//! `--chart CSV SVG` times nothing: it draws measured ratios to other libraries, such as `docs/images/speed.csv`.
//!
//! | file | content |
//! |---|---|
//! | `options`, `common/program` | the command line, errors and exit codes |
//! | `timer` | the median of repeated calls, rounds, and lines of JSON |
//! | `products` | integer matrix products, dynamically quantized linear layers, and a float product |
//! | `convolutions` | convolutions in both layouts |
//! | `conversions` | quantize, dequantize, cast, fake-quantize forward and backward |
//! | `speedup`, `common/bars`, `common/chart` | the chart of `--chart` |

#[path = "../common/bars.rs"]
mod bars;
#[path = "../common/chart.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod chart;
mod conversions;
mod convolutions;
#[path = "../../benches/data/mod.rs"]
mod data;
mod options;
mod products;
#[path = "../common/program.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod program;
mod speedup;
#[path = "../common/threads.rs"]
mod threads;
mod timer;

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use options::Options;
use program::Result;
use threads::with_threads;
use timer::Timer;

fn main() -> ExitCode {
    program::run(options::HELP, options::parse(), |options| with_threads(options.threads, || run(options)))
}

fn run(options: &Options) -> Result {
    if let Some([csv, svg]) = &options.chart {
        return speedup::run(csv, svg);
    }
    let mut timer = Timer::new(options, io::stdout().lock());
    let shapes = if options.convolutions { Vec::new() } else { read_shapes()? };
    for _ in 0..options.rounds.unwrap_or(1) {
        if options.convolutions {
            convolutions::SHAPES.into_iter().try_for_each(|shape| convolutions::run(&mut timer, shape))?;
            continue;
        }
        products::peak(&mut timer)?;
        shapes.iter().try_for_each(|&shape| products::run(&mut timer, shape))?;
        conversions::SIZES.into_iter().try_for_each(|len| conversions::run(&mut timer, len))?;
    }
    timer.finish()
}

fn read_shapes() -> Result<Vec<products::Shape>> {
    if io::stdin().is_terminal() {
        eprintln!("timing: reading shapes from the terminal, a line `ROWS DEPTH COLUMNS` each");
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    products::Shape::parse_lines(&text)
}
