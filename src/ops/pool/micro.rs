//! Poolings as steps of models for microcontrollers.

use crate::affine::{Arithmetic, Multiplier};
use crate::error::Result;
use crate::micro::{AveragePool, GlobalAveragePool, Region, Step, Windows};
use crate::window::Window;

impl Windows {
    fn place(window: &Window, kernel: [usize; 2], image: [usize; 3], x: Region, y: Region) -> Result<Self> {
        let [height, width, channels] = image;
        Ok(Self { x, y, window: window.place(kernel, [height, width])?, channels })
    }
}

impl super::MaxPool {
    pub(super) fn micro_step(&self, image: [usize; 3], x: Region, y: Region) -> Result<Step> {
        Ok(Step::MaxPool(Windows::place(&self.window, self.kernel, image, x, y)?))
    }
}

/// The means of networks are computed in `f32`.
impl super::AveragePool<u8> {
    pub(super) fn micro_step(&self, image: [usize; 3], x: Region, y: Region) -> Result<Step> {
        Ok(Step::AveragePool(AveragePool {
            windows: Windows::place(&self.window, self.kernel, image, x, y)?,
            params: [self.x.scale_zero_point("input")?, self.y.scale_zero_point("output")?],
            count_include_pad: self.count_include_pad.into(),
            codes: self.codes,
            offset: self.code_offset,
        }))
    }
}

impl super::GlobalAveragePool<u8> {
    pub(super) fn micro_step(&self, [height, width, _]: [usize; 3], x: Region, y: Region) -> Result<Step> {
        let ((x_scale, x_zero), (y_scale, y_zero)) =
            (self.input().scale_zero_point("input")?, self.output().scale_zero_point("output")?);
        let multiplier = match Multiplier::mean(x_scale, y_scale, height * width, Arithmetic::F32)? {
            Multiplier::F32(multiplier) => multiplier,
            _ => unreachable!("the arithmetic is F32"),
        };
        let codes = self.codes();
        Ok(Step::GlobalAveragePool(GlobalAveragePool { x, y, multiplier, x_zero, y_zero, codes }))
    }
}
