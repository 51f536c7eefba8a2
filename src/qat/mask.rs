//! The straight-through mask: one bit per element.

use alloc::vec::Vec;

use ndarray::{Array, ArrayRef, Dimension};

use super::loops;
use crate::element::Float;
use crate::error::{Result, check_shapes};

/// The straight-through mask of a forward pass: one bit per element, set where the value was not clipped. The gradient
/// passes where the bit is set. (PyTorch: the mask of `fake_quantize_per_tensor_affine_cachemask`.)
///
/// [`FakeQuantize::backward`](super::FakeQuantize::backward) needs only the mask, not the input.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{QParams, qat::FakeQuantize};
/// let fake = FakeQuantize::new(QParams::<i8>::per_tensor(0.01, 0)?);
/// let (_, mask) = fake.forward(&array![0.5f32, 3.0, -1.0])?;
/// assert_eq!(mask.to_array(), array![true, false, true]);
/// assert_eq!((mask.clipped(), mask.size_in_bytes()), (1, 8));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SteMask<D: Dimension> {
    dim: D,
    /// Row-major, with the first element in the lowest bit; unused bits are 0.
    words: Vec<u64>,
}

pub(super) const WORD: usize = u64::BITS as usize;

impl<D: Dimension> SteMask<D> {
    /// A mask for a tensor of this shape without clipped elements.
    pub fn unclipped(shape: D) -> Self {
        let mut mask = Self { dim: shape, words: Vec::new() };
        let len = mask.dim.size();
        mask.words.resize(len.div_ceil(WORD), u64::MAX);
        if let Some(last) = mask.words.last_mut() {
            *last >>= len.wrapping_neg() % WORD;
        }
        mask
    }

    /// The shape of the tensor.
    pub fn raw_dim(&self) -> D {
        self.dim.clone()
    }

    /// The number of elements that were clipped.
    pub fn clipped(&self) -> usize {
        self.dim.size() - self.words.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    }

    /// The mask as `bool`: `false` where the element was clipped.
    pub fn to_array(&self) -> Array<bool, D> {
        Array::from_shape_vec(self.raw_dim(), self.bits().collect()).expect("one bit per element")
    }

    /// The size of the mask in memory.
    pub fn size_in_bytes(&self) -> usize {
        size_of::<u64>() * self.words.len()
    }

    /// Resizes to a tensor of this shape with all bits cleared, reusing the allocation, and returns the words.
    pub(super) fn reset(&mut self, shape: D) -> &mut [u64] {
        self.words.clear();
        self.words.resize(shape.size().div_ceil(WORD), 0);
        self.dim = shape;
        &mut self.words
    }

    /// `out[i] = grad[i]` where the bit is set, otherwise 0.
    pub(super) fn apply<F: Float>(&self, grad: &ArrayRef<F, D>, out: &mut ArrayRef<F, D>) -> Result<()> {
        check_shapes("gradient", self.dim.slice(), grad.shape())?;
        check_shapes("gradient of the input", self.dim.slice(), out.shape())?;
        if let (Some(grad), Some(out)) = (grad.as_slice(), out.as_slice_mut()) {
            loops::select(&self.words, grad, out);
        } else {
            let elements = out.iter_mut().zip(grad).zip(self.bits());
            elements.for_each(|((out, &grad), passes)| *out = grad.only_if(passes));
        }
        Ok(())
    }

    fn bits(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.dim.size()).map(|i| self.words[i / WORD] >> (i % WORD) & 1 == 1)
    }
}
