//! Searches for the scale of a group that minimizes a weighted error.
//!
//! For given codes `q`, the scale that minimizes `Σ w (x - d q)²` is `d = Σ w x q / Σ w q²`, and the error that remains is
//! `Σ w x² - (Σ w x q)² / Σ w q²`. So codes are better if `(Σ w x q)² / Σ w q²` is greater. Sums are in `f32`, in this order.

use super::iq4_nl::CODEBOOK;
use super::{bounds, first_max, nearest};

/// Groups whose magnitudes are all below this are 0.
const LEAST: f32 = 1e-15;

/// The sums `Σ w x q` and `Σ w q²`.
#[derive(Clone, Copy, Default)]
struct Sums {
    xq: f32,
    qq: f32,
}

impl Sums {
    fn add(&mut self, w: f32, x: f32, q: f32) {
        self.xq += w * x * q;
        self.qq += w * q * q;
    }

    fn minus(self, w: f32, x: f32, q: f32) -> Self {
        Self { xq: self.xq - w * x * q, qq: self.qq - w * q * q }
    }

    /// Returns the best scale.
    fn scale(self) -> f32 {
        if self.qq > 0.0 { self.xq / self.qq } else { 0.0 }
    }
}

/// Finds codes `-n..n` and a scale that minimize `Σ x² (x - d q)²`, over scales `x / -(n + k / 10)` of the greatest magnitude.
/// Writes the codes plus `n`, and returns the scale.
pub(super) fn fit_symmetric<const N: usize>(x: &[f32; N], n: i32, codes: &mut [i8; N]) -> f32 {
    let max = first_max(x);
    *codes = [0; N];
    if max.abs() < LEAST {
        return 0.0;
    }
    let code = |factor: f32, x: f32| nearest(factor * x).clamp(-n, n - 1);
    let sums_of = |factor: f32| {
        let mut sums = Sums::default();
        x.iter().for_each(|&x| sums.add(x * x, x, code(factor, x) as f32));
        sums
    };
    let mut best_factor = -n as f32 / max;
    let sums = sums_of(best_factor);
    let mut scale = sums.scale();
    let mut best = scale * sums.xq;
    for step in (-9..=9).filter(|&step| step != 0) {
        let factor = -(n as f32 + 0.1 * step as f32) / max;
        let sums = sums_of(factor);
        if sums.qq > 0.0 && sums.xq * sums.xq > best * sums.qq {
            scale = sums.scale();
            (best, best_factor) = (scale * sums.xq, factor);
        }
    }
    *codes = x.map(|x| (code(best_factor, x) + n) as i8);
    scale
}

/// Finds codes `-n..n` and a scale that minimize `Σ x² (x - d q)²`, by moving one code after the other to its best place, at most
/// five times. Writes the codes plus `n`, and returns the scale.
pub(super) fn fit_symmetric_refined<const N: usize>(x: &[f32; N], n: i32, codes: &mut [i8; N]) -> f32 {
    const ROUNDS: usize = 5;
    let max = first_max(x);
    *codes = [0; N];
    if max.abs() < LEAST {
        return 0.0;
    }
    let factor = -n as f32 / max;
    let mut q = x.map(|x| nearest(factor * x).clamp(-n, n - 1));
    let mut sums = Sums::default();
    x.iter().zip(&q).for_each(|(&x, &q)| sums.add(x * x, x, q as f32));
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (&x, q) in x.iter().zip(&mut q) {
            let others = sums.minus(x * x, x, *q as f32);
            if others.xq > 0.0 {
                let moved = nearest(x * others.qq / others.xq).clamp(-n, n - 1);
                let mut all = others;
                all.add(x * x, x, moved as f32);
                if moved != *q && all.qq > 0.0 && all.xq * all.xq * sums.qq > sums.xq * sums.xq * all.qq {
                    (*q, sums, changed) = (moved, all, true);
                }
            }
        }
        if !changed {
            break;
        }
    }
    *codes = q.map(|q| (q + n) as i8);
    sums.scale()
}

/// The steps of [`fit_affine`]: scales `(max - min) / (last + first + width * k)` for `k` in `0..count`.
#[derive(Clone, Copy)]
pub(super) struct Steps {
    pub(super) first: f32,
    pub(super) width: f32,
    pub(super) count: u8,
    /// True for absolute errors, false for squared ones.
    pub(super) absolute: bool,
}

/// Finds codes `0..=last`, a scale and a minimum `m >= 0` with the least error of `d q - m`, weighted by `w`. The scale and the
/// minimum of each step have the least squared error for its codes. Returns them.
pub(super) fn fit_affine<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    last: u8,
    steps: Steps,
    codes: &mut [u8; N],
) -> (f32, f32) {
    let (min, max) = bounds(x);
    let min = min.min(0.0);
    *codes = [0; N];
    if max == min {
        return (0.0, -min);
    }
    let (mut sum_w, mut sum_x) = (0.0, 0.0);
    for (x, w) in x.iter().zip(w) {
        sum_w += w;
        sum_x += w * x;
    }
    let codes_by = |factor: f32, min: f32| x.map(|x| nearest(factor * (x - min)).clamp(0, last as i32) as u8);
    let error = |codes: &[u8; N], scale: f32, min: f32| {
        let terms = x.iter().zip(w).zip(codes);
        terms.fold(0.0, |sum, ((x, w), &q)| {
            let error = scale * q as f32 + min - x;
            sum + w * if steps.absolute { error.abs() } else { error * error }
        })
    };
    let factor = last as f32 / (max - min);
    let (mut scale, mut best_min) = (1.0 / factor, min);
    *codes = codes_by(factor, min);
    let mut best = error(codes, scale, min);
    for k in 0..steps.count {
        let factor = (steps.first + steps.width * k as f32 + last as f32) / (max - best_min);
        let trial = codes_by(factor, best_min);
        let (mut sum_q, mut sum_qq, mut sum_xq) = (0.0, 0.0, 0.0);
        for ((x, w), &q) in x.iter().zip(w).zip(&trial) {
            let q = q as f32;
            sum_q += w * q;
            sum_qq += w * q * q;
            sum_xq += w * q * x;
        }
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant > 0.0 {
            let mut trial_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
            let mut trial_min = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
            if trial_min > 0.0 {
                (trial_min, trial_scale) = (0.0, sum_xq / sum_qq);
            }
            let trial_error = error(&trial, trial_scale, trial_min);
            if trial_error < best {
                (best, scale, best_min, *codes) = (trial_error, trial_scale, trial_min, trial);
            }
        }
    }
    (scale, -best_min)
}

/// Returns the code of the nearest number of the codebook, of two equally near the greater one.
pub(super) fn nearest_in_codebook(x: f32) -> u8 {
    CODEBOOK.windows(2).fold(0, |code, pair| code + (x + x >= (pair[0] as i32 + pair[1] as i32) as f32) as u8)
}

/// Finds a scale that minimizes `Σ x² (x - d c)²` for the nearest numbers `c` of the codebook, over scales of which the greatest
/// magnitude becomes one of the numbers around the first one.
pub(super) fn fit_codebook(x: &[f32; 32]) -> f32 {
    const ROUNDS: i32 = 7;
    let max = first_max(x);
    if max.abs() < LEAST {
        return 0.0;
    }
    let first = CODEBOOK[0] as f32;
    let sums_of = |factor: f32| {
        let mut sums = Sums::default();
        for &x in x {
            // In the order of ggml, which differs from the other search.
            let q = CODEBOOK[nearest_in_codebook(factor * x) as usize] as f32;
            sums.xq += x * x * q * x;
            sums.qq += x * x * q * q;
        }
        sums
    };
    let sums = sums_of(1.0 / (-max / first));
    let mut scale = sums.scale();
    let mut best = scale * sums.xq;
    for step in -ROUNDS..=ROUNDS {
        let sums = sums_of((step as f32 + first) / max);
        if sums.qq > 0.0 && sums.xq * sums.xq > best * sums.qq {
            scale = sums.scale();
            best = scale * sums.xq;
        }
    }
    scale
}
