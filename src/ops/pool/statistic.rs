//! What becomes of the codes of a window: the greatest of them, or their mean.

use crate::affine::{self, Codes, dequantize, float_mean};
use crate::element::Code;
use crate::gemm::Int8;

/// What becomes of the codes of a window, tap after tap.
pub(super) trait Statistic<T>: Copy + Send + Sync {
    type State: Copy;
    /// A tap takes as long as so many products of codes.
    const PRODUCTS: usize;
    /// For windows of so many taps within the image, and within the image or its padding.
    fn over(self, inside: usize, padded: usize) -> Self;
    fn start(self) -> Self::State;
    fn add(self, state: Self::State, code: T) -> Self::State;
    fn finish(self, state: Self::State) -> T;
}

#[derive(Clone, Copy)]
pub(super) struct Greatest;

impl<T: Int8> Statistic<T> for Greatest {
    type State = T;
    const PRODUCTS: usize = 2;
    #[inline(always)]
    fn over(self, _: usize, _: usize) -> Self {
        self
    }
    #[inline(always)]
    fn start(self) -> T {
        T::from_i32(T::MIN)
    }
    #[inline(always)]
    fn add(self, state: T, code: T) -> T {
        state.max(code)
    }
    #[inline(always)]
    fn finish(self, state: T) -> T {
        state
    }
}

/// The taps that a mean counts. A window of nothing but padding has the mean 0.
#[inline(always)]
fn counted(include_pad: bool, inside: usize, padded: usize) -> usize {
    if include_pad { padded } else { inside }.max(1)
}

#[derive(Clone, Copy)]
pub(super) struct FloatMean {
    x: (f32, i32),
    y: (f32, i32),
    include_pad: bool,
    codes: Codes,
    count: f32,
}

impl FloatMean {
    pub(super) fn new(x: (f32, i32), y: (f32, i32), include_pad: bool, codes: Codes) -> Self {
        Self { x, y, include_pad, codes, count: 1.0 }
    }
}

impl<T: Int8> Statistic<T> for FloatMean {
    type State = f32;
    const PRODUCTS: usize = 16;
    #[inline(always)]
    fn over(self, inside: usize, padded: usize) -> Self {
        Self { count: counted(self.include_pad, inside, padded) as f32, ..self }
    }
    #[inline(always)]
    fn start(self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn add(self, state: f32, code: T) -> f32 {
        state + dequantize(code, self.x.1, self.x.0)
    }
    #[inline(always)]
    fn finish(self, state: f32) -> T {
        T::from_i32(float_mean(state, self.count, self.y, self.codes))
    }
}

/// A mean of codes whose sums are `Sum`s.
#[derive(Clone, Copy)]
pub(super) struct IntegerMean<Sum> {
    zero: i32,
    include_pad: bool,
    codes: Codes,
    /// The sum over the padding that counts.
    padding: Sum,
    mean: affine::IntegerMean,
}

impl<Sum: Code> IntegerMean<Sum> {
    pub(super) fn new(zero: i32, include_pad: bool, codes: Codes) -> Self {
        Self { zero, include_pad, codes, padding: Sum::default(), mean: affine::IntegerMean::new(1, codes) }
    }
}

impl<T: Int8, Sum: Code> Statistic<T> for IntegerMean<Sum> {
    type State = Sum;
    const PRODUCTS: usize = 8;
    #[inline(always)]
    fn over(self, inside: usize, padded: usize) -> Self {
        let count = counted(self.include_pad, inside, padded);
        let padding = Sum::from_i32((count - inside) as i32 * self.zero);
        Self { padding, mean: affine::IntegerMean::new(count, self.codes), ..self }
    }
    #[inline(always)]
    fn start(self) -> Sum {
        self.padding
    }
    #[inline(always)]
    fn add(self, state: Sum, code: T) -> Sum {
        Sum::from_i32(state.to_i32() + code.to_i32())
    }
    #[inline(always)]
    fn finish(self, state: Sum) -> T {
        T::from_i32(self.mean.eval(state))
    }
}
