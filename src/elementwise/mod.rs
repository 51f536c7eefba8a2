//! Elementwise quantize, dequantize and fake-quantize, vectorized for the instruction set in use.
//!
//! There is one loop per code type, operator and convention. It reads and writes contiguous data of these types
//! directly. Other float types, strided data, and parameters per element go through a small buffer, which keeps the
//! number of loops low.

mod loops;
mod ops;

use core::marker::PhantomData;

use ndarray::{ArrayView1, ArrayViewMut1, Axis, Zip};

use crate::affine::{Codes, ReciprocalQuantizer, Rounding};
use crate::element::{Code, Compute, Float};
use crate::simd;
use loops::{PerBlock, PerElement, PerTensor, run};
use ops::{AffineOp, DequantizeOp, ElementwiseOp, FakeQuantizeOp, QuantizeOp};

/// Elements in a buffer.
const BUFFER_LEN: usize = 128;

/// The parameters of a run of elements: one scale and zero point, or one for each block of `size` elements. The last
/// block may be shorter.
#[derive(Clone, Copy)]
pub(crate) enum Params<'a, S, Z> {
    PerTensor(S, Z),
    PerBlock { scales: &'a [S], zero_points: Option<&'a [Z]>, size: usize },
}

/// Quantizes: `codes[i] = clamp(round(x[i] / scale) + zero_point)`.
pub(crate) fn quantize_run<F: Float, S: Float, Z: Code, R: Rounding>(
    x: ArrayView1<'_, F>,
    params: Params<'_, S, Z>,
    range: Codes,
    mut codes: ArrayViewMut1<'_, Z>,
) {
    /// Preparing the reciprocal does not pay for shorter runs.
    const MIN_LEN: usize = 512;
    if let (Params::PerTensor(scale, zero_point), true) = (params, x.len() >= MIN_LEN)
        && let (Some(x), Some(y)) = (x.to_slice().and_then(F::as_f32), codes.as_slice_mut())
        && let Some(op) = ReciprocalQuantizer::<Z, R>::new(scale.to_f32(), zero_point.to_i32(), range)
    {
        return per_tensor(op, x, y);
    }
    let op = QuantizeOp::<Z, F::Compute, R> { codes: range, types: PhantomData };
    let in_place = (x.to_slice().and_then(F::as_compute), codes.as_slice_mut());
    if let (Some(x), Some(y)) = in_place
        && contiguous(op, x, params, y)
    {
        return;
    }
    buffered(op, x, params, codes, widen, copy_out);
}

/// Dequantizes: `y[i] = (codes[i] - zero_point) * scale`, in `f64` if `double`, rounded once to `F`.
pub(crate) fn dequantize_run<F: Float, S: Float, Z: Code>(
    codes: ArrayView1<'_, Z>,
    params: Params<'_, S, Z>,
    double: bool,
    mut y: ArrayViewMut1<'_, F>,
) {
    if double {
        return buffered(DequantizeOp::<Z, f64>(PhantomData), codes, params, y, copy_in, |values, y| {
            map_out(values, y, F::from_f64)
        });
    }
    let op = DequantizeOp::<Z, F::Compute>(PhantomData);
    let in_place = (codes.to_slice(), y.as_slice_mut().and_then(F::as_compute_mut));
    if let (Some(x), Some(y)) = in_place
        && contiguous(op, x, params, y)
    {
        return;
    }
    buffered(op, codes, params, y, copy_in, round);
}

/// Fake-quantizes: `y[i] = dequantize(quantize(x[i]))`.
pub(crate) fn fake_quantize_run<F: Float, S: Float, Z: Code, R: Rounding>(
    x: ArrayView1<'_, F>,
    params: Params<'_, S, Z>,
    range: Codes,
    mut y: ArrayViewMut1<'_, F>,
) {
    let op = FakeQuantizeOp::<Z, F::Compute, R> { codes: range, types: PhantomData };
    let in_place = (x.to_slice().and_then(F::as_compute), y.as_slice_mut().and_then(F::as_compute_mut));
    if let (Some(x), Some(y)) = in_place
        && contiguous(op, x, params, y)
    {
        return;
    }
    buffered(op, x, params, y, widen, round);
}

/// Evaluates an operator on slices, with non-temporal stores if they are large.
#[inline]
fn per_tensor<F: ElementwiseOp>(op: F, x: &[F::In], y: &mut [F::Out]) {
    simd::with_non_temporal(size_of_val(x) + size_of_val(y), |non_temporal| {
        let head = non_temporal.map_or(0, |non_temporal| non_temporal.head(y));
        let ((x_head, x), (y_head, y)) = (x.split_at(head), y.split_at_mut(head));
        if head > 0 {
            run(PerTensor { op, x: x_head, y: y_head, non_temporal: None });
        }
        run(PerTensor { op, x, y, non_temporal });
    });
}

/// Evaluates an operator on slices. For blocks of one element it writes nothing and returns `false`.
fn contiguous<S: Float, Z: Code, F: AffineOp>(
    op: F,
    x: &[<F::Op as ElementwiseOp>::In],
    params: Params<'_, S, Z>,
    y: &mut [<F::Op as ElementwiseOp>::Out],
) -> bool {
    match params {
        Params::PerTensor(scale, zero_point) => {
            per_tensor(op.with_params(Compute::from_float(scale), zero_point.to_i32()), x, y);
        }
        Params::PerBlock { size: 1, .. } => return false,
        Params::PerBlock { scales, zero_points, size } => {
            let mut params = ParamBuffer::new();
            let chunks = x.chunks(BUFFER_LEN * size).zip(y.chunks_mut(BUFFER_LEN * size));
            for (k, (x, y)) in chunks.enumerate() {
                let (scale, zero_point) = params.load(scales, zero_points, k * BUFFER_LEN, x.len().div_ceil(size));
                run(PerBlock { op, x, y, scale, zero_point, size });
            }
        }
    }
    true
}

/// Parameters of some blocks, converted to the types that loops compute in.
struct ParamBuffer<C> {
    scale: [C; BUFFER_LEN],
    zero_point: [i32; BUFFER_LEN],
}

impl<C: Compute> ParamBuffer<C> {
    fn new() -> Self {
        Self { scale: [C::ONE; BUFFER_LEN], zero_point: [0; BUFFER_LEN] }
    }

    /// Loads the parameters of blocks `first..first + len`.
    fn load<S: Float, Z: Code>(
        &mut self,
        scales: &[S],
        zero_points: Option<&[Z]>,
        first: usize,
        len: usize,
    ) -> (&[C], &[i32]) {
        let (scale, zero_point) = (&mut self.scale[..len], &mut self.zero_point[..len]);
        scale.iter_mut().zip(&scales[first..]).for_each(|(to, &scale)| *to = Compute::from_float(scale));
        if let Some(zero_points) = zero_points {
            zero_point.iter_mut().zip(&zero_points[first..]).for_each(|(to, zero)| *to = zero.to_i32());
        }
        (scale, zero_point)
    }
}

/// Evaluates an operator through buffers of its own types: `load` fills the input buffer, `store` empties the output
/// buffer.
fn buffered<A: Copy, B, S: Float, Z: Code, F: AffineOp>(
    op: F,
    x: ArrayView1<'_, A>,
    params: Params<'_, S, Z>,
    mut y: ArrayViewMut1<'_, B>,
    load: impl Fn(ArrayView1<'_, A>, &mut [<F::Op as ElementwiseOp>::In]) + Copy,
    store: impl Fn(&[<F::Op as ElementwiseOp>::Out], ArrayViewMut1<'_, B>) + Copy,
) {
    if let Params::PerBlock { scales, zero_points, size } = params
        && size > 1
    {
        let blocks = x.axis_chunks_iter(Axis(0), size).zip(y.axis_chunks_iter_mut(Axis(0), size));
        for (i, (x, y)) in blocks.enumerate() {
            let params = Params::PerTensor(scales[i], zero_points.map_or(Z::default(), |z| z[i]));
            buffered(op, x, params, y, load, store);
        }
        return;
    }
    let (mut ins, mut outs) = ([Default::default(); BUFFER_LEN], [Default::default(); BUFFER_LEN]);
    let mut param_buffer = ParamBuffer::new();
    let chunks = x.axis_chunks_iter(Axis(0), BUFFER_LEN).zip(y.axis_chunks_iter_mut(Axis(0), BUFFER_LEN));
    for (k, (x, y)) in chunks.enumerate() {
        let (ins, outs) = (&mut ins[..x.len()], &mut outs[..x.len()]);
        load(x, ins);
        match params {
            Params::PerTensor(scale, zero_point) => {
                let op = op.with_params(Compute::from_float(scale), zero_point.to_i32());
                run(PerTensor { op, x: ins, y: outs, non_temporal: None });
            }
            Params::PerBlock { scales, zero_points, .. } => {
                let (scale, zero_point) = param_buffer.load(scales, zero_points, k * BUFFER_LEN, ins.len());
                run(PerElement { op, x: ins, y: outs, scale, zero_point });
            }
        }
        store(outs, y);
    }
}

/// Copies codes into a buffer.
fn copy_in<A: Copy>(from: ArrayView1<'_, A>, to: &mut [A]) {
    Zip::from(ArrayViewMut1::from(to)).and(from).for_each(|to, &from| *to = from);
}

/// Converts floats to the type that loops compute in.
pub(crate) fn widen<F: Float>(from: ArrayView1<'_, F>, to: &mut [F::Compute]) {
    match from.to_slice() {
        Some(from) => F::widen_slice(from, to),
        None => Zip::from(ArrayViewMut1::from(to)).and(from).for_each(|to, &from| *to = from.widen()),
    }
}

/// Copies codes out of a buffer.
fn copy_out<B: Copy>(from: &[B], to: ArrayViewMut1<'_, B>) {
    map_out(from, to, |from| from);
}

/// Rounds the results of loops to the float type of the caller.
pub(crate) fn round<F: Float>(from: &[F::Compute], mut to: ArrayViewMut1<'_, F>) {
    match to.as_slice_mut() {
        Some(to) => F::round_slice(from, to),
        None => map_out(from, to, |from| from.to_float()),
    }
}

fn map_out<A: Copy, B>(from: &[A], to: ArrayViewMut1<'_, B>, f: impl Fn(A) -> B) {
    Zip::from(to).and(ArrayView1::from(from)).for_each(|to, &from| *to = f(from));
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::affine::{Quantizer, rounding::Onnx};

    /// Non-temporal stores give the same codes at every alignment of the output.
    #[test]
    fn non_temporal_stores_give_the_same_codes() {
        let x: Vec<f32> = (0..1000).map(|i| i as f32 * 0.1 - 50.0).collect();
        let op = Quantizer::<i8, f32, Onnx>::new(0.3, 5, Codes::all::<i8>());
        let expected: Vec<i8> = x.iter().map(|&x| op.quantize(x)).collect();
        let mut codes = alloc::vec![0; x.len() + 64];
        for offset in 0..64 {
            let y = &mut codes[offset..][..x.len()];
            y.fill(0);
            simd::with_non_temporal(usize::MAX, |non_temporal| run(PerTensor { op, x: &x, y, non_temporal }));
            assert_eq!(&codes[offset..][..x.len()], expected);
        }
    }
}
