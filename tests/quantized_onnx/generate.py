"""Makes small random networks, quantizes them with ONNX Runtime's quantizer in each of its forms, and records what ONNX
Runtime computes.

    python generate.py DIRECTORY [SEED] [INPUTS]

Writes NAME_float.onnx, and NAME_FORM.onnx and NAME_FORM.bin for each network: the outputs for the inputs that the function `inputs` makes, as f32. The
tests make the same inputs. Needs the packages onnx, onnx-ir and onnxruntime."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

ort.set_default_logger_severity(3)


def inputs(shape, index):
    """Numbers in -2..2, by a linear congruential generator, which every language computes alike."""
    state, values = 12345 + 7919 * index, []
    for _ in range(int(np.prod(shape))):
        state = (state * 1664525 + 1013904223) % 2**32
        values.append((state >> 8) / 2**22 - 2.0)
    return np.array(values, np.float32).reshape(shape)


def saturates():
    """Returns whether ONNX Runtime adds two products of u8 and i8 with saturation to i16, as it does on x86-64 without VNNI.
    Networks with weights of i8 compute other codes there."""
    values = [helper.make_tensor_value_info(*v) for v in (("a", TensorProto.UINT8, [1, 2]), ("y", TensorProto.INT32, [1, 1]))]
    weights = numpy_helper.from_array(np.full((2, 1), 127, np.int8), "b")
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "pair", values[:1], values[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"a": np.full((1, 2), 255, np.uint8)})[0]
    if found[0, 0] != 2 * 255 * 127:
        print("ONNX Runtime saturates on this processor: no networks with weights of i8 per tensor or per channel")
        return True
    return False


class Builder:
    def __init__(self, seed):
        self.random, self.nodes, self.constants, self.count = np.random.default_rng(seed), [], [], 0

    def constant(self, values):
        self.count += 1
        name = f"c{self.count}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def normal(self, *shape, scale=1.0):
        return self.constant(self.random.normal(0, scale, shape).astype(np.float32))

    def node(self, op, *inputs, **attributes):
        self.count += 1
        name = f"{op.lower()}{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def conv(self, x, out, depth, kernel, **attributes):
        group = attributes.get("group", 1)
        scale = (depth // group * kernel * kernel) ** -0.5
        w = self.normal(out, depth // group, kernel, kernel, scale=scale)
        return self.node("Conv", x, w, self.normal(out, scale=0.3), **attributes)

    def model(self, shape, output, rank=2, opset=17):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)
        graph = helper.make_graph(self.nodes, "network", [x], [y], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)


# The functions whose floats differ from ONNX Runtime's in the last bits are left out of networks that compute them on
# floats.


def image_network(seed, floats):
    b = Builder(seed)
    x = b.node("Relu", b.conv("x", 8, 3, 3, pads=[1, 1, 1, 1]))
    shortcut = x
    x = b.node("Clip", b.conv(x, 8, 8, 3, pads=[1, 1, 1, 1], group=8), b.constant(np.float32(0)), b.constant(np.float32(6)))
    x = b.conv(x, 8, 8, 1)
    x = b.node("Add", x, shortcut)
    pooled = x if floats else b.node("GlobalAveragePool", x)
    gate = b.node("Relu" if floats else "Sigmoid", b.conv(pooled, 8, 8, 1))
    x = b.node("Mul", x, gate)
    x = b.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    left = b.node("LeakyRelu", b.conv(x, 12, 8, 3, pads=[0, 0, 1, 1]), alpha=0.1)
    right = b.conv(x, 6, 8, 3, pads=[0, 0, 1, 1], group=2)
    x = b.node("Concat", left, right, axis=1)
    x = b.node("MaxPool" if floats else "AveragePool", x, kernel_shape=[2, 2], strides=[1, 1])
    x = b.node("Flatten", x)
    return b.model([1, 3, 10, 10], b.node("Gemm", x, b.normal(10, 162, scale=0.08), b.normal(10, scale=0.3), transB=1)), (1, 3, 10, 10)


def vector_network(seed, floats):
    b = Builder(seed)
    x = b.node("Gemm", "x", b.normal(24, 32, scale=0.2), b.normal(32, scale=0.3))
    x = b.node("Relu", x)
    left = b.node("MatMul", x, b.normal(32, 32, scale=0.18))
    right = b.node("Relu" if floats else "Sigmoid", b.node("MatMul", x, b.normal(32, 32, scale=0.18)))
    x = b.node("Mul", left, right)
    x = b.node("Add", x, b.normal(32))
    return b.model([1, 24], b.node("MatMul", x, b.normal(32, 7, scale=0.18))), (1, 24)


def sequence_network(seed, floats):
    b = Builder(seed)
    x = b.node("MatMul", "x", b.normal(16, 16, scale=0.25))
    x = b.node("Reshape", b.node("Add", x, b.normal(16)), b.constant(np.array([1, 6, 4, 4], np.int64)))
    heads = b.node("Transpose", x, perm=[0, 2, 1, 3])
    scores = b.node("MatMul", heads, b.node("Transpose", x, perm=[0, 2, 3, 1]))
    mixed = b.node("MatMul", scores, heads)
    x = b.node("Reshape", b.node("Transpose", mixed, perm=[0, 2, 1, 3]), b.constant(np.array([1, 6, 16], np.int64)))
    return b.model([1, 6, 16], b.node("MatMul", x, b.normal(16, 5, scale=0.02)), rank=3), (1, 6, 16)


def groups_network(seed, floats):
    b = Builder(seed)
    x = b.node("Relu", b.node("Add", b.node("MatMul", "x", b.normal(80, 48, scale=0.1)), b.normal(48)))
    return b.model([1, 4, 80], b.node("MatMul", x, b.normal(48, 20, scale=0.1)), rank=3, opset=21), (1, 4, 80)


NETWORKS = {"image": image_network, "vector": vector_network, "sequence": sequence_network}

TYPES = {"u8": QuantType.QUInt8, "i8": QuantType.QInt8}

# Name: format, activations, weights, per channel.
STATIC = {
    "qdq_u8i8": (QuantFormat.QDQ, "u8", "i8", True),
    "qdq_u8u8": (QuantFormat.QDQ, "u8", "u8", False),
    "qdq_i8i8": (QuantFormat.QDQ, "i8", "i8", True),
    "qop_u8i8": (QuantFormat.QOperator, "u8", "i8", True),
    "qop_u8u8": (QuantFormat.QOperator, "u8", "u8", False),
    "qop_i8i8": (QuantFormat.QOperator, "i8", "i8", False),
}
DYNAMIC = {"dynamic_i8": ("i8", True), "dynamic_u8": ("u8", False)}


# Weights of MatMul in blocks along the depth. Name: bits, length, symmetric, accuracy level, format.
GROUPS = {
    "4_int8": (4, 32, True, 4, QuantFormat.QOperator),
    "4_f32": (4, 16, False, 0, QuantFormat.QOperator),
    "8_f32": (8, 32, False, 0, QuantFormat.QOperator),
    "blocks": (4, 16, False, 0, QuantFormat.QDQ),
    "blocks_symmetric": (4, 32, True, 0, QuantFormat.QDQ),
}


class Reader(CalibrationDataReader):
    def __init__(self, shape):
        self.batches = iter([{"x": inputs(shape, 1000 + i)} for i in range(16)])

    def get_next(self):
        return next(self.batches, None)


def main(folder, seed=0, count=100):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def float_network(make, path, floats):
        model, shape = make(int(seed), floats)
        onnx.save(model, path)
        quant_pre_process(str(path), str(path), skip_symbolic_shape=True)
        return shape

    exact = not saturates()
    for network, make in NETWORKS.items():
        path = folder / f"{network}_float.onnx"
        shape = float_network(make, path, floats=False)
        for form, (quant_format, activations, weights, per_channel) in STATIC.items():
            if weights == "i8" and not exact:
                continue
            target = folder / f"{network}_{form}.onnx"
            quantize_static(
                str(path), str(target), Reader(shape), quant_format=quant_format, per_channel=per_channel,
                activation_type=TYPES[activations], weight_type=TYPES[weights],
            )
            record(target, shape, int(count))
        path = folder / "temporary.onnx"
        shape = float_network(make, path, floats=True)
        for form, (weights, per_channel) in DYNAMIC.items():
            if weights == "i8" and not exact:
                continue
            target = folder / f"{network}_{form}.onnx"
            quantize_dynamic(str(path), str(target), weight_type=TYPES[weights], per_channel=per_channel)
            record(target, shape, int(count))
    for form, (bits, block_size, symmetric, level, quant_format) in GROUPS.items():
        model, shape = groups_network(int(seed), False)
        quantizer = MatMulNBitsQuantizer(
            model, bits=bits, block_size=block_size, is_symmetric=symmetric, accuracy_level=level, quant_format=quant_format,
        )
        quantizer.process()
        target = folder / f"groups_{form}.onnx"
        onnx.save(quantizer.model.model, target)
        record(target, shape, int(count))
    path.unlink()


def record(path, shape, count):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # A product with dequantized blocks is a product of floats. By default, ONNX Runtime quantizes its input.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs = [session.run(None, {"x": inputs(shape, i)})[0] for i in range(count)]
    path.with_suffix(".bin").write_bytes(np.stack(outputs).astype("<f4").tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
