//! Trains a small network for few bits, and compares it with quantization after training.
//!
//! ```text
//! cargo run --release --example quantization_aware_training
//! ```
//!
//! Read [`network`] to see how the crate is used; the other files are what a program like this has anyway.
//!
//! | file | content |
//! |---|---|
//! | `common/data`, `idx` | the images: the subset in the repository, or the whole set |
//! | `common/net`, `common/train`, `common/progress` | the float network and its training |
//! | `network` | the network with few bits: calibrated, trained, and in integers |
//! | `report` | the accuracies as a table and as JSON |
//! | `picture`, `common/chart` | the accuracies as a picture |
//! | `options`, `common/program` | the command line, errors and exit codes |

#[path = "../common/chart.rs"]
mod chart;
#[path = "../common/data.rs"]
mod data;
mod idx;
#[path = "../common/net.rs"]
mod net;
mod network;
mod options;
mod picture;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/progress.rs"]
mod progress;
mod report;
#[path = "../common/train.rs"]
mod train;

use std::process::ExitCode;

use ndarray::s;
use ndarray_quant::observer::{MinMax, Mse};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use data::{CLASSES, Dataset};
use net::Network;
use network::FewBits;
use options::Options;
use program::Result;
use progress::Progress;
use report::Outcome;

/// Each gives other first weights and another order of the images.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Of the weights of all layers and of the activations between them.
const BITS: [u32; 4] = [8, 4, 3, 2];

/// Over the 6000 images of the repository; a greater set is gone through less often.
const EPOCHS: usize = 40;

/// Number of training images that calibrate the ranges and the initial scales.
const CALIBRATION: usize = 512;

fn main() -> ExitCode {
    program::run(options::HELP, options::parse(), run)
}

fn run(options: &Options) -> Result {
    let (train, test) = match &options.data {
        Some(directory) => idx::load(directory)?,
        None => Dataset::load()?,
    };
    let epochs = (EPOCHS * 6000 / train.len()).clamp(4, EPOCHS);
    let outcomes = compare(&train, &test, epochs)?;
    print!("{}", report::table(&outcomes));
    program::at(&options.svg, picture::save(&options.svg, &outcomes))?;
    println!("\nPicture: {}", options.svg.display());
    program::save_json(options.json.as_deref(), &outcomes, Outcome::to_json)
}

/// All widths and seeds.
fn compare(train: &Dataset, test: &Dataset, epochs: usize) -> Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = BITS.map(Outcome::new).into();
    let mut progress = Progress::new("training", SEEDS.len() * (1 + BITS.len()) * epochs);
    for seed in SEEDS {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut float = Network::new(&[train.images.ncols(), 256, 128, CLASSES], &mut rng);
        progress.set_title(format!("{seed}: float"));
        train::train(&mut float, train, epochs, &mut progress, &mut rng);
        let float_accuracy = accuracy(test, |images| Ok(float.forward(images)))?;

        let calibration = train.images.slice(s![..CALIBRATION.min(train.len()), ..]);
        for outcome in &mut outcomes {
            let bits = outcome.bits;
            progress.set_title(format!("{seed}: W{bits}A{bits}"));
            let plain = FewBits::calibrated(&float, &calibration, bits, MinMax::per_tensor())?;
            let best = FewBits::calibrated(&float, &calibration, bits, Mse::per_tensor())?;
            let mut trained = FewBits::with_learned_steps(&float, &calibration, bits)?;
            trained.train(train, epochs, &mut progress, &mut rng)?;
            outcome.float.push(float_accuracy);
            outcome.min_max.push(accuracy(test, |images| plain.forward(images))?);
            outcome.least_error.push(accuracy(test, |images| best.forward(images))?);
            outcome.trained.push(accuracy(test, |images| trained.forward(images))?);
            outcome.codes_that_differ += trained.codes_that_differ_in_integers(test)?;
        }
    }
    progress.clear();
    Ok(outcomes)
}

/// Returns top-1 accuracy: the fraction of images whose label has the greatest score.
fn accuracy(
    data: &Dataset,
    scores: impl Fn(&ndarray::ArrayRef2<f32>) -> ndarray_quant::Result<ndarray::Array2<f32>>,
) -> ndarray_quant::Result<f64> {
    let mut right = 0;
    for (images, labels) in data.batches(256).zip(data.labels.axis_chunks_iter(ndarray::Axis(0), 256)) {
        right += net::predictions(&scores(&images)?).zip(labels).filter(|(found, expected)| found == *expected).count();
    }
    Ok(right as f64 / data.len() as f64)
}
