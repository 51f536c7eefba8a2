//! Trains a small network for few bits, and compares it with quantization after training.
//!
//! ```text
//! cargo run --release --example quantization_aware_training
//! ```
//!
//! Read [`network`] and [`one_bit`] to see how the crate is used; the other files are what a program like this has anyway.
//!
//! | file | content |
//! |---|---|
//! | `common/data`, `idx` | the images: the subset in the repository, or the whole set |
//! | `common/net`, `common/train`, `common/progress` | the float network and its training |
//! | `network` | the network with few bits: calibrated, trained, and in integers |
//! | `one_bit` | the network of signs: trained, and by XOR and population counts |
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
mod one_bit;
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
use network::{FewBits, Width};
use one_bit::OneBit;
use options::Options;
use program::Result;
use progress::Progress;
use report::Outcome;

/// Each gives other first weights and another order of the images.
const SEEDS: [u64; 3] = [1, 2, 3];

const WIDTHS: [Width; 5] = [Width::Bits(8), Width::Bits(4), Width::Bits(3), Width::Bits(2), Width::Ternary];

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
    let mut outcomes: Vec<Outcome> = WIDTHS.map(|width| Outcome::new(width.name(), width.bits())).into();
    let mut signs = Outcome::new(one_bit::NAME.into(), 1.0);
    let mut progress = Progress::new("training", SEEDS.len() * (2 + WIDTHS.len()) * epochs);
    for seed in SEEDS {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut float = Network::new(&[train.images.ncols(), 256, 128, CLASSES], &mut rng);
        progress.set_title(format!("{seed}: float"));
        train::train(&mut float, train, epochs, &mut progress, &mut rng);
        let float_accuracy = accuracy(test, |images| Ok(float.forward(images)))?;

        let calibration = train.images.slice(s![..CALIBRATION.min(train.len()), ..]);
        for (outcome, width) in outcomes.iter_mut().zip(WIDTHS) {
            progress.set_title(format!("{seed}: {}", outcome.name));
            let plain = FewBits::calibrated(&float, &calibration, width, MinMax::per_tensor())?;
            let best = FewBits::calibrated(&float, &calibration, width, Mse::per_tensor())?;
            let mut trained = FewBits::with_learned_steps(&float, &calibration, width)?;
            trained.train(train, epochs, &mut progress, &mut rng)?;
            outcome.float.push(float_accuracy);
            outcome.min_max.push(accuracy(test, |images| plain.forward(images))?);
            outcome.least_error.push(accuracy(test, |images| best.forward(images))?);
            outcome.trained.push(accuracy(test, |images| trained.forward(images))?);
            outcome.codes_that_differ += trained.codes_that_differ_in_integers(test)?;
            outcome.bytes = trained.size_in_bytes()?;
        }

        progress.set_title(format!("{seed}: {}", signs.name));
        let mut network = OneBit::new(&float)?;
        signs.float.push(float_accuracy);
        signs.least_error.push(accuracy(test, |images| network.forward(images))?);
        network.train(train, epochs, &mut progress, &mut rng)?;
        signs.trained.push(accuracy(test, |images| network.forward(images))?);
        signs.codes_that_differ += network.codes_that_differ_in_integers(test)?;
        signs.bytes = network.size_in_bytes()?;
    }
    progress.clear();
    outcomes.push(signs);
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
