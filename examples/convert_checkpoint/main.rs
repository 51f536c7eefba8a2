//! Converts a checkpoint of safetensors files to a quantized GGUF file, tensor by tensor.
//!
//! ```text
//! cargo run --release --features gguf --example convert_checkpoint -- MODEL.safetensors... -o MODEL.gguf --type q4_k
//! ```
//!
//! Only one tensor is in memory at a time. Tensors of two axes and more whose last axis is a multiple of a block get the
//! type; other floats become `F32`, and integers stay what they are. The file appears when it is complete.
//!
//! | file | content |
//! |---|---|
//! | `options`, `common/program`, `common/progress` | the command line, errors, exit codes and progress |
//! | `checkpoint` | the tensors of safetensors files, read one by one |
//! | `quantize` | the bytes of a tensor in its type |

mod checkpoint;
mod options;
#[path = "../common/program.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod program;
#[path = "../common/progress.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod progress;
mod quantize;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use ndarray_quant::io::gguf::{GgmlType, GgufBuilder, Value};

use checkpoint::Checkpoint;
use options::Options;
use program::{Result, at};
use progress::Progress;

fn main() -> ExitCode {
    program::run(options::HELP, options::parse(), run)
}

fn run(options: &Options) -> Result {
    let checkpoint = Checkpoint::open(&options.files)?;
    let mut builder = GgufBuilder::new();
    builder.metadata("general.architecture", Value::from(&*options.architecture))?;
    builder.metadata("general.quantization_version", Value::U32(2))?;
    let types: Vec<GgmlType> = checkpoint.tensors.iter().map(|tensor| quantize::type_of(tensor, options.to)).collect();
    for (tensor, ggml_type) in checkpoint.tensors.iter().zip(&types) {
        builder.tensor(&tensor.name, &tensor.shape, *ggml_type)?;
    }
    let partial = options.output.with_extension("gguf.partial");
    let written = write(&checkpoint, &types, &builder, &partial);
    let moved = written.and_then(|()| at(&options.output, fs::rename(&partial, &options.output)));
    if moved.is_err() {
        // The first error says what went wrong.
        let _ = fs::remove_file(&partial);
    }
    moved?;
    let mut counts = BTreeMap::<&str, (usize, usize)>::new();
    for (tensor, ggml_type) in checkpoint.tensors.iter().zip(&types) {
        let (tensors, bytes) = counts.entry(ggml_type.name()).or_default();
        *tensors += 1;
        *bytes += ggml_type.tensor_bytes(&tensor.shape).unwrap_or(0);
    }
    for (name, (tensors, bytes)) in counts {
        println!("{name:8} {tensors:6} tensors {bytes:14} bytes");
    }
    let read: usize = checkpoint.tensors.iter().map(|tensor| tensor.len).sum();
    println!("{}: {} bytes, from {read} bytes of tensors", options.output.display(), builder.file_size());
    Ok(())
}

/// Writes the file, one tensor after the other.
fn write(checkpoint: &Checkpoint, types: &[GgmlType], builder: &GgufBuilder, path: &Path) -> Result {
    let mut file = BufWriter::new(at(path, File::create(path))?);
    at(path, file.write_all(&builder.header()))?;
    let mut progress = Progress::new("converting", checkpoint.tensors.len());
    for (tensor, &ggml_type) in checkpoint.tensors.iter().zip(types) {
        let mut bytes = quantize::bytes(tensor, &checkpoint.read(tensor)?, ggml_type)?;
        builder.pad(&mut bytes);
        at(path, file.write_all(&bytes))?;
        progress.advance(1, &tensor.name);
    }
    progress.clear();
    at(path, file.flush())
}
