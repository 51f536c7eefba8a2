//! What a step computes: one operator, on floats or on codes in the order of memory.

use alloc::vec::Vec;
use core::fmt::Debug;

use crate::error::Result;
use crate::gemm::Workspace;

/// The elements of a tensor in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    Code,
}

/// The elements of a tensor, in the order of memory.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    Float(&'a [f32]),
    Code(&'a [u8]),
}

pub(crate) enum ValuesMut<'a> {
    Float(&'a mut [f32]),
    Code(&'a mut [u8]),
}

/// The two types of elements. The plan gives each step tensors of the kinds that it was made for.
pub(crate) trait Item: Copy + Default + Send + Sync + Debug + 'static {
    const KIND: Kind;
    fn of(values: Values<'_>) -> &[Self];
    fn of_mut(values: ValuesMut<'_>) -> &mut [Self];
    fn values(slice: &[Self]) -> Values<'_>;
}

macro_rules! items {
    ($($t:ident $kind:ident),*) => {$(
        impl Item for $t {
            const KIND: Kind = Kind::$kind;
            fn of(values: Values<'_>) -> &[Self] {
                match values {
                    Values::$kind(values) => values,
                    _ => unreachable!("the plan gives steps the kinds that they are for"),
                }
            }
            fn of_mut(values: ValuesMut<'_>) -> &mut [Self] {
                match values {
                    ValuesMut::$kind(values) => values,
                    _ => unreachable!("the plan gives steps the kinds that they are for"),
                }
            }
            fn values(slice: &[Self]) -> Values<'_> {
                Values::$kind(slice)
            }
        }
    )*};
}
items!(f32 Float, u8 Code);

impl<'a> Values<'a> {
    pub(crate) fn as_slice<T: Item>(self) -> &'a [T] {
        T::of(self)
    }
}

impl<'a> ValuesMut<'a> {
    pub(crate) fn into_slice<T: Item>(self) -> &'a mut [T] {
        T::of_mut(self)
    }
}

/// One operator with everything prepared for its shapes.
pub(crate) trait Kernel: Debug + Send + Sync {
    /// Computes as many images as there are in the inputs.
    ///
    /// The position in an [`Error::NonFinite`](crate::Error::NonFinite) is that in the slice of the first input; the
    /// plan makes it an index of the tensor.
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()>;

    /// Chooses between the code of zero and an error for NaN. Only kernels that quantize floats do anything.
    fn set_nan_as_zero(&mut self, _: bool) {}
}

/// Arena that steps use while they run, and that they find in any state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch {
    /// Of each thread.
    pub(crate) parts: Vec<Vec<f32>>,
    pub(crate) wide: Vec<f32>,
    pub(crate) codes: Vec<u8>,
    pub(crate) gemm: Workspace,
}

impl Scratch {
    /// Arena for so many threads.
    pub(crate) fn parts(parts: &mut Vec<Vec<f32>>, count: usize) -> &mut [Vec<f32>] {
        parts.resize_with(parts.len().max(count), Vec::new);
        &mut parts[..count]
    }
}

/// A slice of this length; what it holds is left over from before.
pub(crate) fn scratch<T: Copy + Default>(memory: &mut Vec<T>, len: usize) -> &mut [T] {
    if memory.len() < len {
        memory.resize(len, T::default());
    }
    &mut memory[..len]
}
