//! Packed codes against a plain list of codes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ndarray::{Array, Axis, IxDyn};
use ndarray_quant::element::Code;
use ndarray_quant::{Element, I2, I4, Packed, QParams, QTensor, U2, U4};

#[derive(Arbitrary, Debug)]
struct Input {
    shape: Vec<u16>,
    codes: Vec<u8>,
    kind: u8,
    scale: f32,
    axis: u8,
    /// True for packed bytes of the wrong length or shape.
    raw: bool,
}

fn check<T: Element<Storage<IxDyn> = Packed<T, IxDyn>>>(input: &Input) {
    let shape: Vec<usize> = input.shape.iter().take(4).map(|&len| len.into()).collect();
    if input.raw {
        if let Ok(packed) = Packed::<T, IxDyn>::from_bytes(IxDyn(&shape), input.codes.clone()) {
            let codes = packed.unpack();
            assert_eq!(Packed::<T, _>::pack(&codes).expect("codes of the type"), packed);
        }
        return;
    }
    let shape: Vec<usize> = shape.iter().map(|len| len % 9).collect();
    let code = |i: usize| T::Code::from_i32(i32::from(*input.codes.get(i).unwrap_or(&0) as i8));
    let len = shape.iter().product::<usize>();
    let codes = Array::from_shape_vec(IxDyn(&shape), (0..len).map(code).collect()).expect("a shape");
    let valid = codes.iter().all(|code| (T::MIN..=T::MAX).contains(&code.to_i32()));
    // Any strides.
    let mut view = codes.view();
    view.invert_axis_if_any(input.axis);
    match Packed::<T, _>::pack(&view) {
        Err(error) => assert!(!valid, "{error}"),
        Ok(packed) => {
            assert!(valid);
            assert_eq!(packed.unpack(), view);
            assert_eq!(packed.as_bytes().len(), (len * T::BITS as usize).div_ceil(8));
            if let Ok(params) = QParams::<T>::per_tensor(input.scale, T::Code::default()) {
                let x = QTensor::from_codes(view.to_owned(), params).expect("valid codes");
                let y = x.dequantize();
                assert!(y.iter().zip(&view).all(|(y, code)| *y == code.to_i32() as f32 * input.scale));
            }
        }
    }
}

trait InvertAxis {
    fn invert_axis_if_any(&mut self, axis: u8);
}

impl<T> InvertAxis for ndarray::ArrayViewD<'_, T> {
    fn invert_axis_if_any(&mut self, axis: u8) {
        if self.ndim() > 0 {
            self.invert_axis(Axis(usize::from(axis) % self.ndim()));
            self.swap_axes(0, usize::from(axis >> 4) % self.ndim());
        }
    }
}

fuzz_target!(|input: Input| match input.kind % 4 {
    0 => check::<I4>(&input),
    1 => check::<U4>(&input),
    2 => check::<I2>(&input),
    _ => check::<U2>(&input),
});
