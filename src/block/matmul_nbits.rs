//! The weights of ONNX Runtime's `MatMulNBits`.

use alloc::vec::Vec;

use ndarray::{Array2, ArrayRef2, ArrayRef3, Ix2, Zip};

use crate::element::{Code, Element};
use crate::error::{Error, Result, check_shapes};
use crate::granularity::Granularity;
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// Returns the weights of `MatMulNBits` (ONNX Runtime: `com.microsoft`) as a tensor `[n, k]` with groups along its last axis:
/// `w[i, j] = (q[i, j] - zero_point[i, j / size]) * scale[i, j / size]`.
///
/// `T` is [`U4`](crate::U4), [`U2`](crate::U2) or `u8`, for the attribute `bits`. `packed` is the input `B`, `[n, blocks, size *
/// bits / 8]` bytes with the first code of a byte in its low bits; codes beyond `k` are dropped. `scales` are `[n, blocks]`,
/// `zero_points` `[n, ceil(blocks * bits / 8)]` bytes in the same order, `2^(bits - 1)` if there are none.
///
/// Scales of a [`QTensor`] are positive. A block with a negative scale gets the codes `2^bits - 1 - q` and the zero point
/// `2^bits - 1 - zero_point`; in a block with the scale 0 all codes are the zero point. The values are the same.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit each other, [`Error::Argument`] if `T` is signed or has more than 8 bits,
/// [`Error::Params`] if a scale is not finite.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{U4, block::from_matmul_nbits};
/// let packed = array![[[0x98u8, 0x0f]]]; // one block of four codes: 8, 9, 15, 0
/// let w = from_matmul_nbits::<U4>(&packed, &array![[0.5f32]], None, 3)?;
/// assert_eq!(w.dequantize(), array![[0.0, 0.5, 3.5]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
pub fn from_matmul_nbits<T: Element>(
    packed: &ArrayRef3<u8>,
    scales: &ArrayRef2<f32>,
    zero_points: Option<&ArrayRef2<u8>>,
    k: usize,
) -> Result<QTensor<T, Ix2>> {
    if T::MIN != 0 || T::BITS > 8 {
        let found = alloc::format!("{}", T::DTYPE);
        return Err(Error::Argument { what: "type of the weights", expected: "u2, u4 or u8", found });
    }
    let (n, blocks, bytes) = packed.dim();
    let per_byte = 8 / T::BITS as usize;
    // The shape of the bytes bounds the product.
    let size = bytes.saturating_mul(per_byte);
    if size == 0 || blocks != k.div_ceil(size) {
        let expected = [n, k.div_ceil(size.max(per_byte)), bytes.max(1)];
        return Err(Error::shape("packed weights", &expected, packed.shape()));
    }
    check_shapes("scales", &[n, blocks], scales.shape())?;
    let code = |bytes: u8, i: usize| bytes >> (i as u32 * T::BITS) & (0xff >> (8 - T::BITS));
    let unsigned = packed.outer_iter().flat_map(|row| {
        let codes = row.into_iter().flat_map(|&byte| (0..per_byte).map(move |i| code(byte, i)));
        codes.take(k).collect::<Vec<u8>>()
    });
    let unsigned = Array2::from_shape_vec((n, k), unsigned.collect());
    let unsigned = unsigned.map_err(|_| Error::shape("packed weights", &[n, k], packed.shape()))?;
    let zero_points = match zero_points {
        Some(packed) => {
            check_shapes("zero points", &[n, blocks.div_ceil(per_byte)], packed.shape())?;
            let at = |(i, block): (usize, usize)| code(packed[[i, block / per_byte]], block % per_byte);
            Array2::from_shape_fn((n, blocks), |at_block| i32::from(at(at_block)))
        }
        None => Array2::from_elem((n, blocks), 1 << (T::BITS - 1)),
    };
    let codes = Array2::from_shape_fn((n, k), |(i, k)| {
        let (scale, zero_point) = (scales[[i, k / size]], zero_points[[i, k / size]]);
        T::Code::from_i32(match i32::from(unsigned[[i, k]]) {
            _ if scale == 0.0 => zero_point,
            code if scale < 0.0 => T::MAX - code,
            code => code,
        })
    });
    let zero_points = Zip::from(&zero_points).and(scales).map_collect(|&zero_point, &scale| {
        T::Code::from_i32(if scale < 0.0 { T::MAX - zero_point } else { zero_point })
    });
    let scales = scales.mapv(|scale| if scale == 0.0 { 1.0 } else { scale.abs() });
    let params = QParams::new(Granularity::PerGroup { axis: 1, size }, scales, Some(zero_points))?;
    QTensor::from_codes(codes, params)
}
