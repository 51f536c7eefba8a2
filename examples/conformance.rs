//! Compares the crate with the recorded outputs of established systems.
//!
//! ```text
//! cargo run --release --example conformance -- DIR
//! ```
//!
//! `DIR` is a folder of cases, at any depth, or a `.tar.gz` archive of one, such as
//! `tests/conformance/ort.tar.gz`; several are taken one after the other. `tests/conformance/README.md` describes the
//! format. The exit status is 1 if a case fails, 2 if there is nothing to run.

#[path = "../tests/conformance/runner/mod.rs"]
mod runner;

use std::path::Path;
use std::process::ExitCode;

use runner::{Report, Store};

fn main() -> ExitCode {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: conformance DIR|ARCHIVE.tar.gz ...");
        return ExitCode::from(2);
    }
    let mut report = Report::default();
    for path in &paths {
        let path = Path::new(path);
        match Store::open(path) {
            Ok(store) => runner::run(&store, &mut report),
            Err(error) => {
                eprintln!("{}: {error}", path.display());
                return ExitCode::from(2);
            }
        }
    }
    println!("{report}");
    match report.total() {
        total if total.failed > 0 => ExitCode::FAILURE,
        total if total.passed + total.not_covered == 0 => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    }
}
