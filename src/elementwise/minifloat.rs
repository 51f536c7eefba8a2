//! Elementwise encode and decode of float codes, by the loop of the other conversions.

use core::marker::PhantomData;

use ndarray::{ArrayView1, ArrayViewMut1};

use super::ops::AffineOp;
use super::{Params, Stored, buffered, map};
use crate::element::minifloat::{decode, encode_compute};
use crate::element::{Compute, Float, Minifloat};

/// `round(x / scale)`: the quotient is rounded to `C`, then to the code.
#[derive(Clone, Copy)]
struct Encoder<T, C> {
    scale: C,
    saturate: bool,
    code: PhantomData<T>,
}

/// `code * scale`.
#[derive(Clone, Copy)]
struct Decoder<T, C> {
    scale: C,
    code: PhantomData<T>,
}

impl<T: Minifloat, C: Compute> AffineOp for Encoder<T, C> {
    type In = C;
    type Out = T;
    type Scale = C;
    type Settings = bool;
    const PER_ISA: bool = size_of::<C>() == 4;

    #[inline(always)]
    fn new(scale: C, _: i32, saturate: bool) -> Self {
        Self { scale, saturate, code: PhantomData }
    }
    #[inline(always)]
    fn eval(self, x: C) -> T {
        T::from_bits(encode_compute::<T, C>(x / self.scale, self.saturate))
    }
}

impl<T: Minifloat, C: Compute> AffineOp for Decoder<T, C> {
    type In = T;
    type Out = C;
    type Scale = C;
    type Settings = ();
    const PER_ISA: bool = size_of::<C>() == 4;

    #[inline(always)]
    fn new(scale: C, _: i32, (): ()) -> Self {
        Self { scale, code: PhantomData }
    }
    #[inline(always)]
    fn eval(self, code: T) -> C {
        C::from_f32(decode::<T>(code.to_bits())) * self.scale
    }
}

/// Encodes: `codes[i] = round(x[i] / scale)`.
pub(crate) fn encode_run<F: Float, T: Minifloat>(
    x: ArrayView1<'_, F>,
    params: Params<'_, i8>,
    saturate: bool,
    codes: ArrayViewMut1<'_, T>,
) {
    buffered(Stored::floats(), x, Stored::codes(), codes, params.size, &mut |first, x, codes| {
        map::<Encoder<T, F::Compute>, i8>(saturate, x, params.starting_at(first), codes);
    });
}

/// Decodes: `y[i] = codes[i] * scale`.
pub(crate) fn decode_run<F: Float, T: Minifloat>(
    codes: ArrayView1<'_, T>,
    params: Params<'_, i8>,
    y: ArrayViewMut1<'_, F>,
) {
    buffered(Stored::codes(), codes, Stored::floats(), y, params.size, &mut |first, codes, y| {
        map::<Decoder<T, F::Compute>, i8>((), codes, params.starting_at(first), y);
    });
}
