"""Adds networks to golden.json and golden.npz, computed with timm or with PyTorch's operations.

    pip install torch timm && python tests/reference/make_golden.py [NAME...]

The entries with "made by" are this script's; the others come with the reference set. Networks in FLOAT64
are computed in double precision too: with the formula's weights their float32 logits are further from those
than the tolerance.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from golden import formula_image, formula_weights

HERE = Path(__file__).parent
ROOT2 = 1.4142135
TIMM = {  # gain
    "vgg13": ROOT2,
    "vgg11_bn": ROOT2,
    "vgg19_bn": ROOT2,
    "resnet34": 1.0,
    "resnext101_32x4d": 1.0,
    "densenet169": ROOT2,
    "tf_mobilenetv3_small_minimal_100": ROOT2,
    "mobilenetv4_conv_medium": 1.16,
    "tf_efficientnet_b3": 1.16,
    "tf_efficientnet_b6": 1.08,
    "tf_efficientnet_lite2": ROOT2,
    "tf_efficientnetv2_b2": 1.24,
    "tf_efficientnetv2_m": 1.0,
    "convnext_small": 1.0,
    "convnextv2_tiny": 1.0,
    "convnextv2_base": 1.0,
    "vit_small_patch32_224": 1.0,
    "vit_base_patch32_224": 1.0,
    "vit_large_patch32_224": 1.0,
    "vit_huge_patch14_224": ROOT2,
    "deit_small_patch16_224": 1.0,
    "deit_base_distilled_patch16_224": 1.0,
    "swin_small_patch4_window7_224": 1.0,
    "swin_base_patch4_window12_384": 1.0,
    "swinv2_small_window8_256": 2.0,
    "swinv2_base_window8_256": 2.0,
    "vit_small_r26_s32_224": 1.0,
}
RESIZED = {  # weights of the size in the name, resampled by timm for another; height and width
    "vit_tiny_patch16_224": (160, 208),
    "deit_tiny_distilled_patch16_224": (288, 288),
    "swin_tiny_patch4_window7_224": (128, 200),
}
FLOAT64 = (
    "tf_efficientnet_b1",
    "tf_efficientnet_b2",
    "tf_efficientnet_lite4",
    "tf_efficientnetv2_b0",
    "tf_efficientnetv2_b1",
)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Net:
    """PyTorch's operations with the formula's weights; `self.params` counts them."""

    def __init__(self, gain):
        self.gain, self.params = gain, 0

    def weights(self, name, shape):
        shapes = {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        values = formula_weights(shapes, self.gain)
        self.params += sum(value.size for value in values.values())
        return [torch.tensor(values[key]) for key in shapes]

    def conv(self, x, name, filters, size, stride=1, padding=0, groups=1):
        weight, bias = self.weights(name, (filters, x.shape[1] // groups, size, size))
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)

    def dense(self, x, name, units):
        x = x.flatten(1)
        return F.linear(x, *self.weights(name, (units, x.shape[1])))


def lenet5(net, x):
    x = F.avg_pool2d(torch.tanh(net.conv(x, "c1.conv", 6, 5)), 2)
    x = F.avg_pool2d(torch.tanh(net.conv(x, "c3.conv", 16, 5)), 2)
    x = torch.tanh(net.conv(x, "c5.conv", 120, 5))
    return net.dense(torch.tanh(net.dense(x, "f6", 84)), "classifier", 10)


def alexnet(net, x):
    def norm_pool(x):  # PyTorch divides alpha by the size
        return F.max_pool2d(F.local_response_norm(x, 5, 5e-4, 0.75, 2.0), 3, 2)

    x = norm_pool(F.relu(net.conv(x, "features.0", 96, 11, 4)))
    x = norm_pool(F.relu(net.conv(x, "features.3", 256, 5, 1, 2, 2)))
    x = F.relu(net.conv(x, "features.6", 384, 3, 1, 1))
    x = F.relu(net.conv(x, "features.8", 384, 3, 1, 1, 2))
    x = F.max_pool2d(F.relu(net.conv(x, "features.10", 256, 3, 1, 1, 2)), 3, 2)
    x = F.relu(net.dense(x, "classifier.1", 4096))
    return net.dense(F.relu(net.dense(x, "classifier.4", 4096)), "classifier.6", 1000)


def chatfield(first, second, pools, norms, filters):
    """CNN-F, M or S: (filters, size, stride, padding) of two convolutions, then three of 3 x 3."""

    def run(net, x):
        layers = [first, second, *[(filters, 3, 1, 1)] * 3]
        index = 0
        for i, layer in enumerate(layers):
            x = F.relu(net.conv(x, f"features.{index}", *layer))
            index += 2
            if i in norms:
                x = F.local_response_norm(x, 5, 5e-4, 0.75, 2.0)
            if i in pools:
                x = F.max_pool2d(x, *pools[i], ceil_mode=True)
                index += 1
        x = F.relu(net.dense(x, "pre_logits.fc1", 4096))
        return net.dense(F.relu(net.dense(x, "pre_logits.fc2", 4096)), "head.fc", 1000)

    return run


def googlenet(net, x):
    def inception(x, name, one, three_reduce, three, five_reduce, five, pool):
        def branch(x, number, filters, size=1):
            return F.relu(net.conv(x, f"{name}.branch{number}.conv", filters, size, 1, size // 2))

        return torch.cat(
            [
                branch(x, "1", one),
                branch(branch(x, "2.0", three_reduce), "2.1", three, 3),
                branch(branch(x, "3.0", five_reduce), "3.1", five, 5),
                branch(F.max_pool2d(x, 3, 1, 1), "4.1", pool),
            ],
            1,
        )

    def pool(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x):
        return F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)

    x = norm(pool(F.relu(net.conv(x, "conv1.conv", 64, 7, 2, 3))))
    x = F.relu(net.conv(x, "conv2.conv", 64, 1))
    x = pool(norm(F.relu(net.conv(x, "conv3.conv", 192, 3, 1, 1))))
    x = inception(x, "inception3a", 64, 96, 128, 16, 32, 32)
    x = pool(inception(x, "inception3b", 128, 128, 192, 32, 96, 64))
    x = inception(x, "inception4a", 192, 96, 208, 16, 48, 64)
    x = inception(x, "inception4b", 160, 112, 224, 24, 64, 64)
    x = inception(x, "inception4c", 128, 128, 256, 24, 64, 64)
    x = inception(x, "inception4d", 112, 144, 288, 32, 64, 64)
    x = pool(inception(x, "inception4e", 256, 160, 320, 32, 128, 128))
    x = inception(x, "inception5a", 256, 160, 320, 32, 128, 128)
    x = inception(x, "inception5b", 384, 192, 384, 48, 128, 128)
    return net.dense(x.mean((2, 3)), "fc", 1000)


F_CONVS = ((64, 11, 4, 0), (256, 5, 1, 2), {0: (3, 2), 1: (3, 2), 4: (3, 2)}, (0, 1), 256)
M_CONVS = ((96, 7, 2, 0), (256, 5, 2, 1), {0: (3, 2), 1: (3, 2), 4: (3, 2)}, (0, 1), 512)
S_CONVS = ((96, 7, 2, 0), (256, 5, 1, 1), {0: (3, 3), 1: (2, 2), 4: (3, 3)}, (0,), 512)
OPERATIONS = {  # network, gain, image size
    "lenet5": (lenet5, 1.0, 32),
    "alexnet": (alexnet, ROOT2, 227),
    "vgg_f": (chatfield(*F_CONVS), ROOT2, 224),
    "vgg_m": (chatfield(*M_CONVS), ROOT2, 224),
    "vgg_s": (chatfield(*S_CONVS), ROOT2, 224),
    "googlenet": (googlenet, ROOT2, 224),
}


def image(size, mean, std):
    pixels = formula_image(*((size, size) if isinstance(size, int) else size)).astype(np.float64)[
        ..., : len(mean)
    ]
    return torch.tensor((pixels / 255 - np.array(mean)) / np.array(std)).permute(2, 0, 1)[None]


def with_timm(name, gain, dtype):
    if name == "densenet264":
        model = timm.models.densenet.DenseNet(growth_rate=32, block_config=(6, 12, 64, 48)).eval()
        mean, std, size = *IMAGENET, 224
    else:
        model = timm.create_model(name, num_classes=1000).eval()  # some are published without a classifier
        config = model.pretrained_cfg
        mean, std, size = config["mean"], config["std"], config["input_size"][1]
    shapes = {key: tuple(v.shape) for key, v in model.state_dict().items() if v.ndim}
    weights = {key: torch.tensor(value) for key, value in formula_weights(shapes, gain).items()}
    model.load_state_dict(weights, strict=False)
    logits = model.to(dtype)(image(size, mean, std).to(dtype))[0].numpy()
    params = sum(p.numel() for p in model.parameters())
    entry = {"peer": f"timm/{name}", "gain": gain, "input": [size, size, 3], "mean": mean, "std": std}
    return entry | {"params": params, "made by": "make_golden.py"}, logits


def with_timm_resized(name, entry, size):
    shapes = {key: tuple(v.shape) for key, v in timm.create_model(name).state_dict().items() if v.ndim}
    weights = {key: torch.tensor(value) for key, value in formula_weights(shapes, entry["gain"]).items()}
    model = timm.create_model(name, img_size=size).eval()
    module = sys.modules[type(model).__module__]
    model.load_state_dict(module.checkpoint_filter_fn(weights, model), strict=False)
    logits = model(image(size, entry["mean"], entry["std"]).float())[0].numpy()
    own = {"input": [*size, 3], "weights of": entry["input"], "made by": "make_golden.py"}
    return entry | own, logits


def with_operations(name):
    network, gain, size = OPERATIONS[name]
    mean, std = ((20 / 255,), (200 / 255,)) if name == "lenet5" else IMAGENET
    net = Net(gain)
    logits = network(net, image(size, mean, std).float())[0].numpy()
    entry = {"peer": "torch", "gain": gain, "input": [size, size, len(mean)], "mean": mean, "std": std}
    return entry | {"params": net.params, "made by": "make_golden.py"}, logits


@torch.no_grad()
def main(names):
    entries = json.loads((HERE / "golden.json").read_text())
    logits = dict(np.load(HERE / "golden.npz"))
    for name in names or [*TIMM, "densenet264", *OPERATIONS]:
        if name in OPERATIONS:
            entries[name], logits[name] = with_operations(name)
        else:
            entries[name], logits[name] = with_timm(name, TIMM.get(name, ROOT2), torch.float32)
        print(name, entries[name]["params"], "standard deviation", logits[name].std())
    for name, size in RESIZED.items():
        key = f"{name} at {size[0]}x{size[1]}"
        entries[key], logits[key] = with_timm_resized(name, entries[name], size)
        print(key, "standard deviation", logits[key].std())
    for name in FLOAT64:
        logits[f"{name}.float64"] = with_timm(name, entries[name]["gain"], torch.float64)[1]
    (HERE / "golden.json").write_text(json.dumps(dict(sorted(entries.items())), indent=1) + "\n")
    np.savez_compressed(HERE / "golden.npz", **logits)


if __name__ == "__main__":
    main(sys.argv[1:])
