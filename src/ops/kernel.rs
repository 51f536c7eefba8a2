//! The kernels of a plan: one operator each, prepared for its shapes, on f32 or on codes.

use alloc::vec::Vec;
use core::fmt::Debug;

use crate::error::Result;
use crate::gemm::Workspace;
use crate::micro::{StepWriter, Written};

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    Code,
}

/// The elements of a tensor in its buffer: NHWC for four axes, else row-major.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    F32(&'a [f32]),
    Code(&'a [u8]),
}

pub(crate) enum ValuesMut<'a> {
    F32(&'a mut [f32]),
    Code(&'a mut [u8]),
}

/// `f32` or `u8`. The plan gives each kernel tensors of the element type that it was made for.
pub(crate) trait Scalar: Copy + Default + Send + Sync + Debug + 'static {
    const KIND: Kind;
    fn of(values: Values<'_>) -> &[Self];
    fn of_mut(values: ValuesMut<'_>) -> &mut [Self];
    fn values(slice: &[Self]) -> Values<'_>;
}

macro_rules! scalars {
    ($($t:ident $kind:ident),*) => {$(
        impl Scalar for $t {
            const KIND: Kind = Kind::$kind;
            fn of(values: Values<'_>) -> &[Self] {
                match values {
                    Values::$kind(values) => values,
                    _ => unreachable!("the plan gives kernels the element type that they are made for"),
                }
            }
            fn of_mut(values: ValuesMut<'_>) -> &mut [Self] {
                match values {
                    ValuesMut::$kind(values) => values,
                    _ => unreachable!("the plan gives kernels the element type that they are made for"),
                }
            }
            fn values(slice: &[Self]) -> Values<'_> {
                Values::$kind(slice)
            }
        }
    )*};
}
scalars!(f32 F32, u8 Code);

impl<'a> Values<'a> {
    pub(crate) fn as_slice<T: Scalar>(self) -> &'a [T] {
        T::of(self)
    }
}

impl<'a> ValuesMut<'a> {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            ValuesMut::F32(_) => Kind::F32,
            ValuesMut::Code(_) => Kind::Code,
        }
    }

    pub(crate) fn into_slice<T: Scalar>(self) -> &'a mut [T] {
        T::of_mut(self)
    }
}

/// One operator, prepared for its shapes.
pub(crate) trait Kernel: Debug + Send + Sync {
    /// Computes the output of a batch of `images`.
    ///
    /// The index in a [`Error::Value`](crate::Error::Value) is the position in the slice of the first input;
    /// the plan converts it to an index of the tensor.
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()>;

    /// The memory that the kernel takes for weights and other constants, in bytes.
    fn size_in_bytes(&self) -> usize {
        0
    }

    /// Adds the steps that compute the same on a microcontroller. Layers have them in `graph/micro`.
    fn write_micro(&self, _: &mut StepWriter<'_>) -> Written {
        Err("its operator has no form in a model".into())
    }

    /// Chooses between the code of zero and an error for NaN. Only kernels that quantize floats do anything.
    fn set_nan_as_zero(&mut self, _: bool) {}
}

/// Temporary buffers of kernels, reused from step to step. Kernels find them with any content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    /// The im2col blocks of float convolutions, one per thread.
    pub(crate) im2col: Vec<Vec<f32>>,
    /// The weights of one layer, widened from half precision.
    pub(crate) widened: Vec<f32>,
    /// The codes of one image that is quantized on the fly, or of an input before it is transposed to NHWC.
    pub(crate) codes: Vec<u8>,
    pub(crate) gemm: Workspace,
}

/// Returns one buffer per thread.
pub(crate) fn per_thread(buffers: &mut Vec<Vec<f32>>, threads: usize) -> &mut [Vec<f32>] {
    buffers.resize_with(buffers.len().max(threads), Vec::new);
    &mut buffers[..threads]
}

/// Returns the first `len` elements of a buffer, which grows if it is shorter. Their values are arbitrary.
pub(crate) fn resized<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}
