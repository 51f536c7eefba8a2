//! Pooling against its definition, on every instruction set.

use alloc::vec::Vec;

use ndarray::Array4;
use proptest::prelude::*;

use super::pool_op::{FloatMean, IntegerMean, Max, PoolOp};
use super::windows::Rows;
use crate::affine::{Codes, dequantize, float_mean};
use crate::gemm::Int8;
use crate::simd::{Isa, Target, with_vector};
use crate::window::{Padding, Placed, Window};

#[derive(Debug, Clone)]
struct Case<T: Int8> {
    x: Array4<T>,
    window: Placed,
    count_include_pad: bool,
    x_zero: T,
    first: usize,
}

fn case<T: Int8>() -> impl Strategy<Value = Case<T>> {
    let size = || prop_oneof![4 => 0usize..9, 1 => 20usize..40];
    let channels = prop_oneof![1 => 1usize..5, 2 => 1usize..71, 1 => 90usize..300];
    let padding = prop_oneof![
        1 => Just(Padding::Valid),
        1 => Just(Padding::Same),
        2 => [0usize..5, 0usize..5, 0usize..5, 0usize..5].prop_map(Padding::Explicit),
    ];
    let strides = || prop_oneof![2 => Just([1, 1]), 2 => Just([2, 2]), 1 => [1usize..4, 1usize..4]];
    let dilations = prop_oneof![3 => Just([1, 1]), 1 => [1usize..4, 1usize..4]];
    let kernel = prop_oneof![4 => [1usize..5, 1usize..5], 1 => [1usize..14, 1usize..14]];
    ((1usize..3, size(), size(), channels), kernel, strides(), dilations, padding, any::<bool>())
        .prop_filter_map("the kernel fits", |(dim, kernel, strides, dilations, padding, ceil)| {
            let window = Window::new()
                .with_strides(strides)
                .with_dilations(dilations)
                .with_padding(padding)
                .with_ceil_mode(ceil);
            Some((dim, window.place(kernel, [dim.1, dim.2]).ok()?))
        })
        .prop_flat_map(|(dim, window)| {
            let code = || (T::MIN..=T::MAX).prop_map(T::from_i32);
            let codes = prop::collection::vec(code(), dim.0 * dim.1 * dim.2 * dim.3);
            (codes, any::<bool>(), code(), 0..window.output[0]).prop_map(
                move |(codes, count_include_pad, x_zero, first)| Case {
                    x: Array4::from_shape_vec(dim, codes).unwrap(),
                    window,
                    count_include_pad,
                    x_zero,
                    first,
                },
            )
        })
}

impl<T: Int8> Case<T> {
    /// Calls `reduce(codes, inside, padded)` for each window: its codes, and the counts in the image and with the
    /// padding.
    fn expected(&self, reduce: impl Fn(&[T], usize, usize) -> i32) -> Vec<T> {
        let (window, [rows, columns]) = (&self.window, self.window.output);
        let outputs = Array4::from_shape_fn((self.x.dim().0, rows, columns, self.x.dim().3), |(n, y, x, c)| {
            let ([kh, kw], [dh, dw]) = (window.kernel, window.dilations);
            let (mut codes, mut padded) = (Vec::new(), 0);
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let (down, across) = (y * window.strides[0] + ky * dh, x * window.strides[1] + kx * dw);
                padded += usize::from(down < window.padded[0] && across < window.padded[1]);
                let at = [n, down.wrapping_sub(window.before[0]), across.wrapping_sub(window.before[1]), c];
                codes.extend(self.x.get(at));
            }
            T::from_i32(reduce(&codes, codes.len(), padded))
        });
        outputs.into_iter().collect()
    }

    /// Compares the rows from `self.first` on, on each instruction set.
    fn check<P: PoolOp<T>>(&self, op: P, expected: &[T]) -> Result<(), TestCaseError> {
        let channels = self.x.dim().3;
        let expected = &expected[self.first * self.window.output[1] * channels..];
        for isa in Isa::available() {
            let mut out = alloc::vec![T::default(); expected.len()];
            let x = self.x.as_slice().unwrap();
            let rows = Rows { x, out: &mut out, first: self.first, channels, window: &self.window, op };
            with_vector!(isa, v => v.run(rows));
            prop_assert!(out == expected, "{isa:?}\n{out:?}\n{expected:?}");
        }
        Ok(())
    }

    fn check_all(&self) -> Result<(), TestCaseError> {
        let (zero, count_include_pad, codes) = (self.x_zero.to_i32(), self.count_include_pad, Codes::all::<T>());
        let count = |inside: usize, padded: usize| if count_include_pad { padded } else { inside }.max(1);
        let max = self.expected(|codes, _, _| codes.iter().map(|x| x.to_i32()).max().unwrap_or(T::MIN));
        self.check(Max, &max)?;
        let (x, y) = ((0.05, zero), (0.031, 3));
        let float_mean_codes = self.expected(|window, inside, padded| {
            let sum = window.iter().fold(0.0, |sum, &code| sum + dequantize::<T, f32>(code, zero, x.0));
            float_mean(sum, count(inside, padded) as f32, y, codes)
        });
        self.check(FloatMean::new(x, y, count_include_pad, codes, 0), &float_mean_codes)?;
        let integer_mean_codes = self.expected(|window, inside, padded| {
            let count = count(inside, padded) as i32;
            let sum = window.iter().map(|x| x.to_i32()).sum::<i32>() + (count - inside as i32) * zero;
            (sum + if sum > 0 { count / 2 } else { -(count / 2) }) / count
        });
        self.check(IntegerMean::<i32>::new(zero, count_include_pad, codes), &integer_mean_codes)?;
        if self.window.kernel[0] * self.window.kernel[1] <= 128 {
            self.check(IntegerMean::<i16>::new(zero, count_include_pad, codes), &integer_mean_codes)?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn pooling_u8(case in case::<u8>()) {
        case.check_all()?;
    }

    #[test]
    fn pooling_i8(case in case::<i8>()) {
        case.check_all()?;
    }
}
