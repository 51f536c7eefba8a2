//! Lists a GGUF file, or shows what its formats cost and lose.
//!
//! ```text
//! cargo run --release --features gguf --example gguf -- MODEL.gguf
//! cargo run --release --features gguf --example gguf
//! ```
//!
//! Without a file, weights of a normal distribution are quantized by every block format, written to a GGUF file in memory,
//! read again and dequantized. The table has the bits of a value and the signal-to-quantization-noise ratio.

use std::process::ExitCode;

use ndarray::{Array1, Array2};
use ndarray_quant::block::{
    BlockFormat, BlockTensor, MXFP4, MXFP6E2M3, MXFP6E3M2, MXFP8E4M3, MXFP8E5M2, NF4, NVFP4, ggml,
};
use ndarray_quant::io::gguf::{GgmlType, GgufBuilder, GgufFile, Value};
use ndarray_quant::metrics::sqnr_db;
use rand::RngExt;

fn main() -> ExitCode {
    let result = match std::env::args_os().nth(1) {
        Some(path) => std::fs::read(path).map_err(Into::into).and_then(|bytes| list(&bytes)),
        None => compare(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Prints metadata and tensors of a file.
fn list(bytes: &[u8]) -> Outcome<()> {
    let file = GgufFile::parse(bytes)?;
    for (key, value) in file.metadata() {
        match value {
            Value::String(text) => println!("{key} = {:?}", String::from_utf8_lossy(text)),
            Value::Array(array) => println!("{key} = {} × {:?}", array.len(), array.value_type()),
            value => println!("{key} = {value:?}"),
        }
    }
    for tensor in file.tensors() {
        println!("{:48} {:8} {:?}", tensor.name(), tensor.ggml_type(), tensor.shape());
    }
    println!("{} tensors in {} bytes", file.len(), bytes.len());
    Ok(())
}

/// Quantizes the same weights by each format.
fn compare() -> Outcome<()> {
    let mut random = rand_pcg::Pcg64::new(1, 2);
    // The sum of twelve uniform numbers is close to a normal distribution.
    let weights =
        Array2::from_shape_simple_fn((64, 1024), || (0..12).map(|_| random.random::<f32>() - 0.5).sum::<f32>());
    println!("{:12} {:>6} {:>8}", "format", "bits", "SQNR");
    let mut builder = GgufBuilder::new();
    builder.metadata("general.name", Value::from("weights of a normal distribution"))?;
    let mut data = Vec::new();
    macro_rules! in_file {
        ($($format:ident)*) => {$(
            let q = quantize::<ggml::$format>(&weights)?;
            builder.tensor(stringify!($format), q.shape(), GgmlType::$format)?;
            data.extend(q.as_bytes());
            builder.pad(&mut data);
        )*};
    }
    in_file!(TQ1_0 TQ2_0 Q2_K Q3_K MXFP4 IQ4_XS Q4_0 Q4_K IQ4_NL NVFP4 Q4_1 Q5_0 Q5_K Q5_1 Q6_K Q8_0 Q8_K);
    println!();
    quantize::<MXFP4>(&weights)?;
    quantize::<NVFP4>(&weights)?;
    quantize::<NF4>(&weights)?;
    quantize::<MXFP6E2M3>(&weights)?;
    quantize::<MXFP6E3M2>(&weights)?;
    quantize::<MXFP8E4M3>(&weights)?;
    quantize::<MXFP8E5M2>(&weights)?;

    let bytes = [builder.header(), data].concat();
    let file = GgufFile::parse(&bytes)?;
    let x: Array1<f32> = weights.row(0).to_owned();
    println!("\n{} tensors in a file of {} bytes; the first row of each:", file.len(), bytes.len());
    for tensor in file.tensors() {
        let y = tensor.dequantize()?;
        println!("{:12} {:5.1} dB", tensor.name(), sqnr_db(&x.view().into_dyn(), &y.index_axis(ndarray::Axis(0), 0))?);
    }
    Ok(())
}

/// Quantizes weights and prints a row of the table.
fn quantize<B: BlockFormat>(weights: &Array2<f32>) -> Outcome<BlockTensor<B, ndarray::Ix2>> {
    let q = BlockTensor::<B, _>::quantize(weights)?;
    let bits = 8.0 * q.size_in_bytes() as f64 / weights.len() as f64;
    println!("{:12} {bits:6.3} {:5.1} dB", B::NAME, sqnr_db(weights, &q.dequantize())?);
    Ok(q)
}
