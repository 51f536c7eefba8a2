//! The backend extension: forward and backward passes of the operations on backend tensors.

use std::fmt::Debug;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, binary, unary};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, backend_extension};
use burn::tensor::TensorData;
use ndarray::{ArrayD, IxDyn};
use ndarray_quant::{
    Element,
    qat::{FakeQuantize, LearnedQuantizer, SteMask},
};

const CHECKED: &str = "shapes and types are checked before dispatch";

/// [`FakeQuantize`] of any element type.
pub(crate) trait StraightThrough: Debug + Send + Sync {
    fn forward(&self, x: &ArrayD<f32>) -> (ArrayD<f32>, SteMask<IxDyn>);
    fn backward(&self, mask: &SteMask<IxDyn>, grad: &ArrayD<f32>) -> ArrayD<f32>;
}

impl<T: Element> StraightThrough for FakeQuantize<T> {
    fn forward(&self, x: &ArrayD<f32>) -> (ArrayD<f32>, SteMask<IxDyn>) {
        self.forward(x).expect(CHECKED)
    }
    fn backward(&self, mask: &SteMask<IxDyn>, grad: &ArrayD<f32>) -> ArrayD<f32> {
        self.backward(mask, grad).expect(CHECKED)
    }
}

/// [`LearnedQuantizer`] of any element type, with a gradient by the scales.
pub(crate) trait LearnsScale: Debug + Send + Sync {
    fn forward(&self, x: &ArrayD<f32>) -> ArrayD<f32>;
    fn backward(&self, x: &ArrayD<f32>, grad: &ArrayD<f32>) -> (ArrayD<f32>, ArrayD<f32>);
}

impl<T: Element> LearnsScale for LearnedQuantizer<T> {
    fn forward(&self, x: &ArrayD<f32>) -> ArrayD<f32> {
        self.params().fake_quantize(x).expect(CHECKED)
    }
    fn backward(&self, x: &ArrayD<f32>, grad: &ArrayD<f32>) -> (ArrayD<f32>, ArrayD<f32>) {
        let gradients = self.gradients(x, grad).expect(CHECKED);
        (gradients.input, gradients.scale)
    }
}

#[derive(Debug, Clone)]
pub struct Fixed(pub(crate) Arc<dyn StraightThrough>);
#[derive(Debug, Clone)]
pub struct Learned(pub(crate) Arc<dyn LearnsScale>);

#[backend_extension(Flex, Autodiff)]
pub trait QuantizationBackend: Backend {
    fn fixed(x: FloatTensor<Self>, fake: Fixed) -> FloatTensor<Self>;
    fn learned(x: FloatTensor<Self>, scale: FloatTensor<Self>, quantizer: Learned) -> FloatTensor<Self>;
}

impl QuantizationBackend for Flex {
    fn fixed(x: FloatTensor<Self>, fake: Fixed) -> FloatTensor<Self> {
        tensor(fake.0.forward(&array(x.into_data())).0)
    }

    fn learned(x: FloatTensor<Self>, _scale: FloatTensor<Self>, quantizer: Learned) -> FloatTensor<Self> {
        tensor(quantizer.0.forward(&array(x.into_data())))
    }
}

#[derive(Debug)]
struct FixedBackward;

impl Backward<Flex, 1> for FixedBackward {
    type State = (Fixed, SteMask<IxDyn>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (fake, mask) = ops.state;
        let input = |grad: FloatTensor<Flex>| tensor(fake.0.backward(&mask, &array(grad.into_data())));
        unary::<Flex, _>(ops.parents, ops.node, grads, input);
    }
}

#[derive(Debug)]
struct LearnedBackward;

impl Backward<Flex, 2> for LearnedBackward {
    type State = (Learned, FloatTensor<Flex>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (quantizer, x) = ops.state;
        let x = array(x.into_data());
        let both = |grad: FloatTensor<Flex>| quantizer.0.backward(&x, &array(grad.into_data()));
        binary::<Flex, _, _>(ops.parents, ops.node, grads, |g| tensor(both(g).0), |g| tensor(both(g).1));
    }
}

impl<C: CheckpointStrategy> QuantizationBackend for Autodiff<Flex, C> {
    fn fixed(x: FloatTensor<Self>, fake: Fixed) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (y, mask) = fake.0.forward(&array(x.into_data()));
        match FixedBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((fake, mask), tensor(y)),
            OpsKind::UnTracked(prep) => prep.finish(tensor(y)),
        }
    }

    fn learned(x: FloatTensor<Self>, scale: FloatTensor<Self>, quantizer: Learned) -> FloatTensor<Self> {
        let ((x, x_node), (_, scale_node)) = (x.into_parts(), scale.into_parts());
        let y = tensor(quantizer.0.forward(&array(x.clone().into_data())));
        match LearnedBackward.prepare::<C>([x_node, scale_node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((quantizer, x), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        }
    }
}

/// Converts a tensor of `f32` to an array.
pub(crate) fn array(data: TensorData) -> ArrayD<f32> {
    let shape: Vec<usize> = data.shape().iter().copied().collect();
    ArrayD::from_shape_vec(shape, data.try_to_vec().expect(CHECKED)).expect(CHECKED)
}

fn tensor(values: ArrayD<f32>) -> FloatTensor<Flex> {
    let shape = values.shape().to_vec();
    FloatTensor::<Flex>::from_data(TensorData::new(values.into_iter().collect::<Vec<f32>>(), shape))
}
