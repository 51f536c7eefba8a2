"""Runs networks that this crate wrote in ONNX Runtime, and compares the outputs with those that this crate computed.

    python compare.py DIRECTORY

The directory is that of EXPORTED in the tests. Fails if fewer than 99.9 % of the codes are equal, or if a float differs by
more than 1e-5 of the largest output. Needs the packages onnx and onnxruntime."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from generate import inputs, saturates

ort.set_default_logger_severity(3)
failed, exact = False, not saturates()
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    # All other networks have weights of i8.
    if not exact and "groups" not in path.stem:
        continue
    model = onnx.load(path)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # Without it, ONNX Runtime on x86-64 computes a part of the operators on i8 in float.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = session.get_inputs()[0]
    found = np.frombuffer(path.with_suffix(".bin").read_bytes(), "<f4")
    count = 20
    expected = np.stack([session.run(None, {x.name: inputs(x.shape, i)})[0] for i in range(count)]).ravel()
    differing, greatest = np.mean(found != expected), np.abs(found - expected).max()
    is_codes = not any(floats in path.stem for floats in ("dynamic", "groups"))
    ok = differing <= 0.001 if is_codes else greatest <= 1e-5 * np.abs(expected).max()
    failed |= not ok
    print(f"{path.stem:24} {100 * (1 - differing):7.3f} % equal, greatest difference {greatest:g}")
sys.exit(failed)
