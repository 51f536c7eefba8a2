//! Trains a small network in float, quantizes it in three ways, and measures what each costs and saves.
//!
//! ```text
//! cargo run --release --example quantize_network
//! ```
//!
//! Read [`quantized`] to see how the crate is used; the other files are what a program like this has anyway.
//!
//! | file | content |
//! |---|---|
//! | `common/data` | the images |
//! | `common/net`, `common/train`, `common/progress` | the float network and its training |
//! | `quantized` | the same network with float16, dynamic-range and full-integer arithmetic |
//! | `report` | accuracy, size and time of each, as a table and as JSON |
//! | `modes`, `common/bars` | size and accuracy of each as a bar chart (`--chart`) |
//! | `picture`, `common/chart` | one layer's values and their quantization grid |
//! | `options`, `common/program` | the command line, errors and exit codes |

#[path = "../common/bars.rs"]
mod bars;
#[path = "../common/chart.rs"]
mod chart;
#[path = "../common/data.rs"]
mod data;
mod modes;
#[path = "../common/net.rs"]
mod net;
mod options;
mod picture;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/progress.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod progress;
mod quantized;
mod report;
#[path = "../common/train.rs"]
mod train;

use std::process::ExitCode;
use std::time::Instant;

use ndarray::s;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use data::{CLASSES, Dataset, PIXELS};
use net::Network;
use options::Options;
use program::Result;
use progress::Progress;
use quantized::{DynamicRange, Float16, FullInteger};

/// Everything random comes from this, so every run gives the same networks.
const SEED: u64 = 14;

const EPOCHS: usize = 40;

/// Number of training images that calibrate the ranges of the activations.
const CALIBRATION: usize = 256;

/// The layer in the picture, counted from 0.
const PICTURED_LAYER: usize = 1;

fn main() -> ExitCode {
    program::run(options::HELP, options::parse(), run)
}

fn run(options: &Options) -> Result {
    let (train, test) = Dataset::load()?;
    let float = train_network(&train);

    let calibration = train.images.slice(s![..CALIBRATION, ..]);
    let float16 = Float16::new(&float)?;
    let dynamic_range = DynamicRange::new(&float)?;
    let full_integer = FullInteger::new(&float, &calibration)?;

    let rows = report::measure(&float, &[&float, &float16, &dynamic_range, &full_integer], &test)?;
    print!("{}", report::table(&rows));

    let layer = picture::Layer::new(PICTURED_LAYER, &float, &full_integer, &test)?;
    program::at(&options.svg, picture::save(&options.svg, &layer))?;
    println!("\nPicture of layer {}: {}", PICTURED_LAYER + 1, options.svg.display());
    if let Some(chart) = &options.chart {
        program::at(chart, modes::save(chart, &rows))?;
    }
    program::save_json(options.json.as_deref(), &rows, report::Row::to_json)
}

fn train_network(data: &Dataset) -> Network {
    let start = Instant::now();
    let mut rng = Pcg64Mcg::seed_from_u64(SEED);
    let mut network = Network::new(&[PIXELS, 256, 128, CLASSES], &mut rng);
    let mut progress = Progress::new("training", EPOCHS);
    train::train(&mut network, data, EPOCHS, &mut progress, &mut rng);
    progress.clear();
    // On standard error: unlike the table, it is different every time.
    eprintln!("trained on {} images in {:.1} s", data.len(), start.elapsed().as_secs_f32());
    network
}
