//! The program `ndarray-quant`: quantizes networks from ONNX files, reports the error, runs, times and inspects them.
//!
//! | file | content |
//! |---|---|
//! | `args` | arguments that several commands take |
//! | `quantize`, `report`, `run`, `bench`, `inspect` | a command each |
//! | `model` | ONNX and safetensors files |
//! | `samples`, `images`, `npy` | data: arrays, folders of images, random numbers |
//! | `recipe` | from arguments to a quantized network |
//! | `output` | tables, JSON files, progress bars, the text of errors |

mod args;
mod bench;
mod images;
mod inspect;
mod model;
mod npy;
mod output;
mod quantize;
mod recipe;
mod report;
mod run;
mod samples;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Quantize networks from ONNX files to int8 and below.
#[derive(Parser)]
#[command(name = "ndarray-quant", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  ndarray-quant inspect model.onnx
  ndarray-quant quantize model.onnx -o model.safetensors --calibration-data photos/
  ndarray-quant report model.onnx model.safetensors --data more-photos/
  ndarray-quant bench model.onnx model.safetensors

Exit status: 0 on success, 1 if the work fails, 2 if the command line is not understood.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads of the computation [default: the number of cores].
    #[arg(short = 'x', long, global = true, value_name = "N")]
    threads: Option<std::num::NonZero<usize>>,
}

#[derive(Subcommand)]
enum Command {
    Quantize(quantize::Quantize),
    Report(report::Report),
    Run(run::Run),
    Bench(bench::Bench),
    Inspect(inspect::Inspect),
}

fn main() -> ExitCode {
    let Cli { command, threads } = Cli::parse();
    if let Err(error) = ndarray_quant::gemm::check_isa_variable() {
        eprintln!("ndarray-quant: {error}");
        return ExitCode::from(2);
    }
    let run = move || match command {
        Command::Quantize(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Inspect(command) => command.run(),
    };
    match in_pool(threads.map_or(0, Into::into), run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ndarray-quant: {}", output::explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs `f` on a pool of this many threads; 0 stands for the number of cores.
fn in_pool(threads: usize, f: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(f)
}
