//! How each method is called. A method gives the weights that the layer then has, in floats, so that methods which change
//! the input of a layer compare with the others.

use ndarray::Array2;
use ndarray_quant::ptq::{AdaRound, Awq, CoordinateDescent, Gptq, Hadamard, Hqq, InputStatistics, SmoothQuant};
use ndarray_quant::{I4, Result, Scheme};

/// What a method knows of the input of a layer.
pub(crate) struct Observed {
    pub(crate) statistics: InputStatistics,
    /// `E[x · xᵀ]`.
    pub(crate) hessian: Array2<f64>,
    pub(crate) inputs: Array2<f32>,
}

type Method = fn(&Array2<f32>, &Scheme<I4>, &Observed) -> Result<Array2<f32>>;

pub(crate) const METHODS: [(&str, Method); 11] = [
    ("nearest", |w, scheme, _| Ok(scheme.quantize(w)?.dequantize())),
    ("HQQ", |w, scheme, _| Ok(Hqq::new().quantize(w, scheme)?.dequantize())),
    ("SmoothQuant", |w, scheme, x| {
        let s = SmoothQuant::new().factors(w, &x.statistics.abs_max())?;
        Ok(scheme.quantize(&(w * &s))?.dequantize() / &s)
    }),
    ("AWQ", |w, scheme, x| {
        let s = Awq::new().factors(w, scheme, &x.statistics)?;
        Ok(scheme.quantize(&(w * &s))?.dequantize() / &s)
    }),
    ("Hadamard", |w, scheme, _| {
        let rotation = Hadamard::new(w.ncols(), 1);
        rotation.rotate_back(&scheme.quantize(&rotation.rotate(w)?)?.dequantize())
    }),
    ("coordinate descent", |w, scheme, x| Ok(CoordinateDescent::new().quantize(w, scheme, &x.hessian)?.dequantize())),
    ("AdaRound", |w, scheme, x| Ok(AdaRound::new().quantize(w, scheme, &x.hessian)?.dequantize())),
    ("GPTQ", |w, scheme, x| Ok(Gptq::new().quantize(w, scheme, &x.hessian)?.dequantize())),
    ("GPTQ, act. order", |w, scheme, x| {
        Ok(Gptq::new().activation_order().quantize(w, scheme, &x.hessian)?.dequantize())
    }),
    ("AWQ and GPTQ", |w, scheme, x| {
        let s = Awq::new().factors(w, scheme, &x.statistics)?;
        // The layer then reads the scaled input.
        let mut scaled = InputStatistics::new(w.ncols());
        scaled.observe(&(&x.inputs / &s))?;
        Ok(Gptq::new().quantize(&(w * &s), scheme, &scaled.second_moments())?.dequantize() / &s)
    }),
    ("HQQ and GPTQ", |w, scheme, x| {
        let hqq = Hqq::new().quantize(w, scheme)?;
        Ok(Gptq::new().activation_order().quantize(w, hqq.params(), &x.hessian)?.dequantize())
    }),
];
