//! Reductions of a pooling window: maximum and mean.

use crate::affine::{self, Codes, dequantize, float_mean};
use crate::element::Code;
use crate::gemm::Int8;

/// A reduction of the codes of a window.
pub(crate) trait PoolOp<T>: Copy + Send + Sync {
    type State: Copy;
    /// Cost of one code in multiply-accumulates.
    const COST: usize;
    /// Prepares for windows with `inside` codes in the image and `padded` codes in the image or its padding.
    fn for_window(self, inside: usize, padded: usize) -> Self;
    /// Returns the state before the first code.
    fn init(self) -> Self::State;
    fn accumulate(self, state: Self::State, code: T) -> Self::State;
    /// Returns the output code.
    fn finish(self, state: Self::State) -> T;
}

/// The greatest code of the window.
#[derive(Clone, Copy)]
pub(crate) struct Max;

impl<T: Int8> PoolOp<T> for Max {
    type State = T;
    const COST: usize = 2;
    #[inline(always)]
    fn for_window(self, _: usize, _: usize) -> Self {
        self
    }
    #[inline(always)]
    fn init(self) -> T {
        T::from_i32(T::MIN)
    }
    #[inline(always)]
    fn accumulate(self, state: T, code: T) -> T {
        state.max(code)
    }
    #[inline(always)]
    fn finish(self, state: T) -> T {
        state
    }
}

/// Returns the divisor of a mean. It is at least 1, so that a window of padding only has the mean 0.
#[inline(always)]
fn counted(count_include_pad: bool, inside: usize, padded: usize) -> usize {
    if count_include_pad { padded } else { inside }.max(1)
}

/// The mean of dequantized codes, in `f32`.
#[derive(Clone, Copy)]
pub(crate) struct FloatMean {
    x: (f32, i32),
    y: (f32, i32),
    count_include_pad: bool,
    codes: Codes,
    /// The offset of stored codes from the codes of the formula.
    offset: i32,
    count: f32,
}

impl FloatMean {
    pub(crate) fn new(x: (f32, i32), y: (f32, i32), count_include_pad: bool, codes: Codes, offset: i32) -> Self {
        let (y, codes) = ((y.0, y.1 - offset), codes.minus(offset));
        Self { x, y, count_include_pad, codes, offset, count: 1.0 }
    }
}

impl<T: Int8> PoolOp<T> for FloatMean {
    type State = f32;
    const COST: usize = 16;
    #[inline(always)]
    fn for_window(self, inside: usize, padded: usize) -> Self {
        Self { count: counted(self.count_include_pad, inside, padded) as f32, ..self }
    }
    #[inline(always)]
    fn init(self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn accumulate(self, state: f32, code: T) -> f32 {
        state + dequantize(code, self.x.1, self.x.0)
    }
    #[inline(always)]
    fn finish(self, state: f32) -> T {
        T::from_i32(float_mean(state, self.count, self.y, self.codes) + self.offset)
    }
}

/// The mean of codes, halves away from zero, with an accumulator of type `Acc`.
#[derive(Clone, Copy)]
pub(crate) struct IntegerMean<Acc> {
    zero_point: i32,
    count_include_pad: bool,
    codes: Codes,
    /// Sum of the zero points in the counted padding.
    padding: Acc,
    mean: affine::IntegerMean,
}

impl<Acc: Code> IntegerMean<Acc> {
    pub(crate) fn new(zero_point: i32, count_include_pad: bool, codes: Codes) -> Self {
        Self { zero_point, count_include_pad, codes, padding: Acc::default(), mean: affine::IntegerMean::new(1, codes) }
    }
}

impl<T: Int8, Acc: Code> PoolOp<T> for IntegerMean<Acc> {
    type State = Acc;
    const COST: usize = 8;
    #[inline(always)]
    fn for_window(self, inside: usize, padded: usize) -> Self {
        let count = counted(self.count_include_pad, inside, padded);
        let padding = Acc::from_i32((count - inside) as i32 * self.zero_point);
        Self { padding, mean: affine::IntegerMean::new(count, self.codes), ..self }
    }
    #[inline(always)]
    fn init(self) -> Acc {
        self.padding
    }
    #[inline(always)]
    fn accumulate(self, state: Acc, code: T) -> Acc {
        Acc::from_i32(state.to_i32() + code.to_i32())
    }
    #[inline(always)]
    fn finish(self, state: Acc) -> T {
        T::from_i32(self.mean.eval(state))
    }
}
