//! Runs two models on a Cortex-M4 and compares their codes with those of the host: a trained network on 100 images, and a
//! network of all kinds of steps. Prints instructions and memory, and exits with 1 if a code differs.
#![no_std]
#![no_main]

mod heap;
mod meter;

use core::panic::PanicInfo;

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use ndarray_quant::micro::{Model, ModelError, Sizes};

use meter::{Meter, stack_bytes};

/// The files that `host write` makes for a model.
macro_rules! generated {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../generated/", $name))
    };
}

static CNN: &[u8] = generated!("cnn.bin");
static IMAGES: &[u8] = generated!("cnn.inputs");
static SCORES: &[u8] = generated!("cnn.outputs");
static LABELS: &[u8] = generated!("cnn.labels");

static STEPS: &[u8] = generated!("steps.bin");
static STEPS_INPUTS: &[u8] = generated!("steps.inputs");
static STEPS_OUTPUTS: &[u8] = generated!("steps.outputs");

const fn sizes(model: &[u8]) -> Sizes {
    match Sizes::of(model) {
        Ok(sizes) => sizes,
        Err(_) => panic!("the host wrote no model"),
    }
}

const CNN_SIZES: Sizes = sizes(CNN);
const STEPS_SIZES: Sizes = sizes(STEPS);

/// The position of the greatest code.
fn class(scores: &[u8]) -> usize {
    (0..scores.len()).rev().max_by_key(|&class| scores[class]).unwrap_or(0)
}

#[derive(Default)]
struct Counts {
    runs: u32,
    codes: u32,
    different: u32,
    right: u32,
    instructions: u64,
}

/// Runs a model on all inputs.
fn run(
    model: &'static [u8],
    [inputs, outputs, labels]: [&[u8]; 3],
    [output, arena]: [&mut [u8]; 2],
    meter: &mut Meter,
) -> Result<Counts, ModelError> {
    let model = Model::new(model)?;
    let mut counts = Counts::default();
    for (i, (input, expected)) in
        inputs.chunks_exact(model.sizes().input).zip(outputs.chunks_exact(output.len())).enumerate()
    {
        let (done, instructions) = meter.count(|| model.run(input, output, arena));
        done?;
        counts.runs += 1;
        counts.codes += output.len() as u32;
        counts.different += output.iter().zip(expected).filter(|(found, expected)| found != expected).count() as u32;
        counts.right += u32::from(labels.get(i).is_some_and(|&label| usize::from(label) == class(output)));
        counts.instructions += u64::from(instructions);
    }
    Ok(counts)
}

fn print(name: &str, counts: &Counts, sizes: Sizes) {
    let Counts { runs, codes, different, right, instructions } = counts;
    let each = (*instructions / u64::from(*runs).max(1)) as u32;
    hprintln!("{}: {} runs, {} of {} codes differ from the host's, {} right", name, runs, different, codes, right);
    hprintln!("{}: {} instructions per inference, arena {} bytes", name, each, sizes.arena);
}

fn all(meter: &mut Meter) -> Result<bool, ModelError> {
    let (mut scores, mut arena) = ([0; CNN_SIZES.output], [0; CNN_SIZES.arena]);
    let cnn = run(CNN, [IMAGES, SCORES, LABELS], [&mut scores, &mut arena], meter)?;
    // Printing takes more stack than the inference.
    let stack = stack_bytes();
    let (mut output, mut arena) = ([0; STEPS_SIZES.output], [0; STEPS_SIZES.arena]);
    let steps = run(STEPS, [STEPS_INPUTS, STEPS_OUTPUTS, &[]], [&mut output, &mut arena], meter)?;
    print("cnn", &cnn, CNN_SIZES);
    hprintln!("cnn: {} bytes of stack at most, input, output and arena of both models included", stack);
    print("steps", &steps, STEPS_SIZES);
    Ok(cnn.runs == 100 && steps.runs > 0 && cnn.different + steps.different == 0)
}

#[entry]
fn main() -> ! {
    let passed = match cortex_m::Peripherals::take() {
        Some(peripherals) => all(&mut Meter::new(peripherals.SYST)),
        None => Ok(false),
    };
    match passed {
        Ok(true) => debug::exit(debug::EXIT_SUCCESS),
        Ok(false) => debug::exit(debug::EXIT_FAILURE),
        Err(error) => {
            hprintln!("{}", error);
            debug::exit(debug::EXIT_FAILURE);
        }
    }
    loop {}
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    debug::exit(debug::EXIT_FAILURE);
    loop {}
}
