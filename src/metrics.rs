//! Error metrics: how close values are to reference values.
//!
//! ```
//! use ndarray::array;
//! use ndarray_quant::{Scheme, Quantize, metrics};
//! let x = array![[0.1f32, -0.8], [0.5, 1.0]];
//! let x_hat = Scheme::<i8>::symmetric().quantize(&x)?.dequantize();
//! assert!(metrics::sqnr_db(&x, &x_hat)? > 40.0);
//! assert!(metrics::cosine(&x, &x_hat)? > 0.9999);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

use ndarray::{ArrayRef, Dimension};

use crate::element::Float;
use crate::error::{Result, check_shapes};
use crate::simd::{self, Task};

/// Signal-to-quantization-noise ratio in decibels: `10 log10(Σ x² / Σ (x - y)²)` for reference values `x` and found values
/// `y`. Sums are `f64`.
///
/// Infinite if all values are equal. Rule of thumb for a tensor quantized by its own range: 6 dB per bit.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes differ.
pub fn sqnr_db<F: Float, G: Float, D: Dimension>(reference: &ArrayRef<F, D>, found: &ArrayRef<G, D>) -> Result<f64> {
    Ok(ErrorSums::of(reference, found)?.sqnr_db())
}

/// Cosine similarity: `Σ x·y / sqrt(Σ x² · Σ y²)`. Sums are `f64`.
///
/// 1 if both arrays are zero, 0 if one is.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the shapes differ.
pub fn cosine<F: Float, G: Float, D: Dimension>(reference: &ArrayRef<F, D>, found: &ArrayRef<G, D>) -> Result<f64> {
    Ok(ErrorSums::of(reference, found)?.cosine())
}

/// The sums that the metrics are made of. They can be accumulated over several arrays.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ErrorSums {
    /// `Σ x²`.
    pub(crate) signal: f64,
    /// `Σ y²`.
    found: f64,
    /// `Σ x·y`.
    product: f64,
    /// `Σ (x - y)²`.
    pub(crate) noise: f64,
}

impl ErrorSums {
    fn of<F: Float, G: Float, D: Dimension>(reference: &ArrayRef<F, D>, found: &ArrayRef<G, D>) -> Result<Self> {
        check_shapes("found values", reference.shape(), found.shape())?;
        let mut sums = Self::default();
        sums.add(reference.iter().map(|x| x.to_f64()), found.iter().map(|y| y.to_f64()));
        Ok(sums)
    }

    /// Adds pairs of a reference value and a found value.
    pub(crate) fn add(&mut self, reference: impl Iterator<Item = f64>, found: impl Iterator<Item = f64>) {
        for (x, y) in reference.zip(found) {
            self.signal += x * x;
            self.found += y * y;
            self.product += x * y;
            self.noise += (x - y) * (x - y);
        }
    }

    /// Adds pairs of elements of contiguous arrays of one length.
    pub(crate) fn add_f32(&mut self, reference: &[f32], found: &[f32]) {
        self.merge(simd::run(SumErrors { reference, found }));
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.signal += other.signal;
        self.found += other.found;
        self.product += other.product;
        self.noise += other.noise;
    }

    pub(crate) fn sqnr_db(self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * num_traits::Float::log10(self.signal / self.noise) }
    }

    pub(crate) fn cosine(self) -> f64 {
        let sqrt = num_traits::Float::sqrt;
        let norms: f64 = sqrt(self.signal * self.found);
        // The product may overflow or underflow where its roots do not.
        let norms = if norms.is_normal() { norms } else { sqrt(self.signal) * sqrt(self.found) };
        match norms == 0.0 {
            true => f64::from(u8::from(self.signal == self.found)),
            false => self.product / norms,
        }
    }
}

/// Sums over contiguous arrays, in several partial sums so that it vectorizes.
struct SumErrors<'a> {
    reference: &'a [f32],
    found: &'a [f32],
}

impl Task for SumErrors<'_> {
    type Output = ErrorSums;

    #[inline(always)]
    fn run(self) -> ErrorSums {
        const LANES: usize = 8;
        let [mut signal, mut found, mut product, mut noise] = [[0f64; LANES]; 4];
        let ((x, x_rest), (y, y_rest)) = (self.reference.as_chunks::<LANES>(), self.found.as_chunks::<LANES>());
        for (x, y) in x.iter().zip(y) {
            for i in 0..LANES {
                let (x, y) = (f64::from(x[i]), f64::from(y[i]));
                signal[i] += x * x;
                found[i] += y * y;
                product[i] += x * y;
                noise[i] += (x - y) * (x - y);
            }
        }
        let sum = |lanes: [f64; LANES]| lanes.iter().sum::<f64>();
        let mut sums = ErrorSums { signal: sum(signal), found: sum(found), product: sum(product), noise: sum(noise) };
        for (&x, &y) in x_rest.iter().zip(y_rest) {
            let (x, y) = (f64::from(x), f64::from(y));
            sums.signal += x * x;
            sums.found += y * y;
            sums.product += x * y;
            sums.noise += (x - y) * (x - y);
        }
        sums
    }
}
