//! ONNX files from a list of nodes: operators with constants or other nodes as inputs, and any tensor as output.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ndarray_quant::io::onnx::OnnxReader;

#[path = "../../tests/onnx/message.rs"]
#[allow(dead_code)]
mod message;
mod network;

use message::{Message, float, floats, int, int_list, ints, model_in, node, string, tensor};

const OPS: &str = "\
    Conv ConvTranspose Gemm MatMul BatchNormalization LayerNormalization InstanceNormalization GroupNormalization \
    Add Sub Mul Div Pow Max Min Sum Mean Einsum Abs Exp Log Relu Sigmoid Softplus Erf Round Elu HardSigmoid \
    HardSwish Gelu Clip Softmax LogSoftmax ArgMax CumSum LRN RMSNormalization MaxPool AveragePool GlobalAveragePool \
    GlobalMaxPool ReduceMax ReduceMean ReduceSum Concat Pad Resize Upsample DepthToSpace SpaceToDepth Flatten \
    Reshape Squeeze Unsqueeze Transpose Slice Split Gather Expand Tile Equal Less And Not Where LSTM GRU PRelu \
    Identity Dropout Constant ConstantOfShape Range Mod GatherND ScatterND NonZero Trilu Size Shape Cast \
    QuantizeLinear DequantizeLinear DynamicQuantizeLinear ArgMin LeakyRelu Mish Sign Floor Or Greater GreaterOrEqual \
    ReduceProd ReduceLogSumExp Swish QLinearConv QLinearMatMul ConvInteger MatMulInteger";

/// Operators of `com.microsoft`.
const MICROSOFT: &str = "\
    MatMulNBits QGemm QLinearAdd QLinearMul QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu \
    QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere MatMulIntegerToFloat DynamicQuantizeMatMul \
    DynamicQuantizeLSTM";

const ATTRIBUTES: &str = "\
    axis axes keepdims kernel_shape strides dilations pads group ceil_mode count_include_pad perm alpha beta epsilon \
    transA transB blocksize to upper hidden_size linear_before_reset size num_groups num_outputs split start end \
    allowzero exclusive reverse output_padding output_shape value fmod K N bits block_size accuracy_level \
    channels_last opset";

const TEXTS: [(&str, &str); 12] = [
    ("auto_pad", "SAME_UPPER"),
    ("auto_pad", "VALID"),
    ("mode", "linear"),
    ("mode", "nearest"),
    ("mode", "reflect"),
    ("mode", "edge"),
    ("mode", "CRD"),
    ("equation", "ij,jk->ik"),
    ("equation", "bij,bjk->bik"),
    ("direction", "bidirectional"),
    ("approximate", "tanh"),
    ("coordinate_transformation_mode", "align_corners"),
];

#[derive(Arbitrary, Debug)]
enum Attribute {
    Int(u8, i8),
    Large(u8, i64),
    Ints(u8, Vec<i8>),
    Float(u8, f32),
    Text(u8),
    Value(Vec<i8>),
}

#[derive(Arbitrary, Debug)]
enum Constant {
    Floats(Vec<u8>, i8),
    Special(Vec<u8>, f32),
    Ints(Vec<i8>),
    Large(i64),
    /// Codes of a data type.
    Codes(u8, Vec<u8>, i8),
}

#[derive(Arbitrary, Debug)]
struct Node {
    microsoft: bool,
    op: u8,
    inputs: Vec<u8>,
    attributes: Vec<Attribute>,
}

#[derive(Arbitrary, Debug)]
struct Model {
    opset: u8,
    shape: Vec<u8>,
    constants: Vec<Constant>,
    nodes: Vec<Node>,
    output: u8,
}

fn pick<T>(list: &[T], at: u8) -> &T {
    &list[usize::from(at) % list.len()]
}

fn word(list: &'static str, at: u8) -> &'static str {
    let words = list.split_ascii_whitespace();
    words.clone().nth(usize::from(at) % words.count()).expect("less than their number")
}

fn attribute(attribute: &Attribute) -> Message {
    let list = |values: &[i8]| values.iter().take(8).map(|&v| v.into()).collect::<Vec<i64>>();
    match attribute {
        Attribute::Int(name, value) => int(word(ATTRIBUTES, *name), (*value).into()),
        Attribute::Large(name, value) => int(word(ATTRIBUTES, *name), *value),
        Attribute::Ints(name, values) => int_list(word(ATTRIBUTES, *name), &list(values)),
        Attribute::Float(name, value) => float(word(ATTRIBUTES, *name), *value),
        Attribute::Text(at) => {
            let (name, text) = pick(&TEXTS, *at);
            string(name, text)
        }
        Attribute::Value(values) => tensor("value", ints("", &list(values))),
    }
}

fn constant(name: &str, constant: &Constant) -> Message {
    let shape = |dims: &[u8]| {
        let dims: Vec<i64> = dims.iter().take(5).map(|d| (d % 9).into()).collect();
        let len = dims.iter().product::<i64>().min(1 << 12) as usize;
        (dims, len)
    };
    let all = |dims: &[u8], value: &dyn Fn(usize) -> f32| {
        let (dims, len) = shape(dims);
        floats(name, &dims, &(0..len).map(value).collect::<Vec<f32>>())
    };
    match constant {
        Constant::Codes(kind, dims, step) => {
            let (dims, len) = shape(dims);
            // u8, i8, u16, i16, i32, bool, u4, i4.
            let (data_type, size) = *pick(&[(2, 1), (3, 1), (4, 2), (5, 2), (6, 4), (9, 1), (21, 1), (22, 1)], *kind);
            let bytes: Vec<u8> = (0..len * size).map(|i| (i as u8).wrapping_mul(*step as u8)).collect();
            let message = dims.iter().fold(Message::default(), |m, &d| m.int(1, d));
            message.int(2, data_type).text(8, name).bytes(9, &bytes)
        }
        Constant::Floats(dims, step) => all(dims, &|i| (i % 17) as f32 * f32::from(*step) / 64.0),
        Constant::Special(dims, value) => all(dims, &|_| *value),
        Constant::Ints(values) => ints(name, &values.iter().take(16).map(|&v| v.into()).collect::<Vec<i64>>()),
        Constant::Large(value) => ints(name, &[*value]),
    }
}

fuzz_target!(|file: Model| {
    let mut names = vec!["x".to_string()];
    let constants = file.constants.iter().take(8).enumerate().map(|(i, c)| {
        names.push(format!("c{i}"));
        constant(&names[names.len() - 1], c)
    });
    let constants: Vec<Message> = constants.collect();
    let nodes = file.nodes.iter().take(16).enumerate().map(|(i, n)| {
        // The first name is that of an omitted input.
        let input = |&at: &u8| if at == 255 { "" } else { pick(&names, at).as_str() };
        let inputs: Vec<&str> = n.inputs.iter().take(8).map(input).collect();
        let attributes: Vec<Message> = n.attributes.iter().take(6).map(attribute).collect();
        let output = format!("n{i}");
        let message = match n.microsoft {
            true => node(word(MICROSOFT, n.op), &inputs, &output, &attributes).text(7, "com.microsoft"),
            false => node(word(OPS, n.op), &inputs, &output, &attributes),
        };
        names.push(output);
        message
    });
    let nodes: Vec<Message> = nodes.collect();
    let shape: Vec<i64> = std::iter::once(1).chain(file.shape.iter().take(4).map(|&d| (d % 12).into())).collect();
    // The last tensor is the most likely output.
    let output = if file.output < 192 { &names[names.len() - 1] } else { pick(&names, file.output) };
    let bytes = model_in((file.opset % 26).into(), &nodes, &constants, &shape, output);
    let reader = OnnxReader::new().with_max_elements(1 << 12);
    if let Ok(graph) = reader.read(&bytes) {
        network::check(graph);
    }
    if let Ok((graph, recipe)) = reader.read_quantized(&bytes) {
        network::check_quantized(&graph, &recipe);
    }
});
