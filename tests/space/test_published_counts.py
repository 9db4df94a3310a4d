"""Parameters and multiply-adds of the published networks, of their papers' ablations, and of crosses between them.

The expected numbers are the papers', or were counted on the authors' own code: ERFNet (IV 2017; Eromera/
erfnet_pytorch), FPLNet (arXiv 2302.11785), NDNet (zgyang-hnu/NDNet), SwiftNet (orsic/swiftnet), RegSeg (RolandGao/
RegSeg), STDC's backbone (MichaelFan01/STDC-Seg), DABNet (Reagan1311/DABNet), DDRNet (ydhongHIT/DDRNet), RDRNet
(gyyang23/RDRNet); or, for Fast-SCNN, on a port (Tramac/Fast-SCNN-pytorch), since its authors published none. None of
them was computed by this repository.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import space
from space.architecture import Architecture
from space.context import SpatialPyramid
from space.count import Layer
from space.decoders.cat import CatDecoder
from space.decoders.ladder import LadderDecoder
from space.fusion import Fuse
from space.head import Head
from space.stem import Stem


def in_stages(architecture: Architecture, **changes: object) -> Architecture:
    """The architecture with the same change in all stages."""
    return replace(architecture, stages=tuple(replace(stage, **changes) for stage in architecture.stages))  # type: ignore[arg-type]


# Name, classes, parameters at inference, parameters with the auxiliary heads.
PARAMETERS = [
    ("erfnet", 20, 2_064_256, 2_066_836),  # 2.06M in the paper
    ("erfnet", 19, 2_064_191, 2_066_642),
    ("erfnet", 12, 2_063_736, 2_065_284),
    ("erfnet", 11, 2_063_671, 2_065_090),
    ("erfnet-encoder", 20, 1_876_624, 1_876_624),
    ("erfnet-encoder", 19, 1_876_495, 1_876_495),
    ("erfnet-encoder", 12, 1_875_592, 1_875_592),
    ("erfnet-encoder", 11, 1_875_463, 1_875_463),
    ("fplnet", 20, 499_858, 499_858),  # 0.49M in the paper
    ("fplnet", 19, 499_793, 499_793),
    ("fplnet", 12, 499_338, 499_338),
    ("fplnet", 11, 499_273, 499_273),
    ("fplnet-encoder", 20, 419_994, 419_994),  # 419.994k in the paper
    ("fplnet-encoder", 19, 419_735, 419_735),
    ("fplnet-encoder", 12, 417_922, 417_922),
    ("fplnet-encoder", 11, 417_663, 417_663),
    ("ndnet29-fcn32", 19, 521_411, 550_422),  # 550.42k published
    ("ndnet29w-fcn32", 19, 3_384_331, 3_457_182),  # 3.46M
    ("ndnet45-fcn32", 19, 399_947, 420_190),  # 420.19k
    ("ndnet61-fcn32", 19, 307_475, 323_334),  # 323.33k
    ("ndnet45-ende", 19, 482_379, 502_622),  # 502.62k, and what the released weights hold
    ("swiftnet-rn18", 19, 11_797_071, 11_797_071),  # 11.8M
    ("swiftnet-rn18", 11, 11_796_039, 11_796_039),
    ("swiftnet-rn18-pyramid", 19, 12_056_275, 12_056_275),
    ("swiftnet-rn18-pyramid", 11, 12_055_243, 12_055_243),
    ("swiftnet-mnv2", 19, 2_368_831, 2_368_831),  # 2.4M
    ("stdc1", 19, 5_654_195, 5_654_195),  # its backbone, 5,318,304, under RegSeg's decoder
    ("fast-scnn", 19, 1_138_051, 1_157_174),
    ("fast-scnn", 11, 1_137_019, 1_155_878),
    ("regseg", 19, 3_334_951, 3_334_951),
    ("regseg", 11, 3_334_431, 3_334_431),
    ("dabnet", 19, 756_643, 756_643),
    ("dabnet", 11, 754_571, 754_571),
    ("ddrnet23-slim", 19, 5_695_987, 5_734_342),  # 5.7M, with the biases of its stem (64)
    ("ddrnet23-slim", 11, 5_695_467, 5_733_302),
    ("rdrnet-s", 19, 7_200_435, 7_276_998),  # 7.3M, as they run
    ("rdrnet-s", 11, 7_199_403, 7_274_934),
    ("rdrnet-s-simple", 19, 7_125_363, 7_163_718),  # 7.2M
    ("rdrnet-s-simple", 11, 7_124_843, 7_162_678),
]

# Name, classes, height, width, 10^9 multiply-adds as printed.
MULTIPLY_ADDS = [
    ("erfnet", 20, 512, 1024, "26.613"),
    ("erfnet", 20, 1024, 2048, "106.45"),
    ("erfnet", 20, 360, 640, "11.70"),
    ("erfnet", 11, 360, 480, "8.75"),
    ("erfnet", 11, 720, 960, "34.99"),
    ("erfnet-encoder", 20, 512, 1024, "21.533"),
    ("fplnet", 20, 512, 1024, "8.702"),
    ("fplnet", 11, 360, 480, "2.843"),
    ("fplnet-encoder", 20, 512, 1024, "7.061"),
    ("fplnet-encoder", 11, 360, 480, "2.321"),
    ("ndnet29-fcn32", 19, 1024, 2048, "2.720"),
    ("ndnet29w-fcn32", 19, 1024, 2048, "17.119"),
    ("ndnet45-fcn32", 19, 1024, 2048, "1.976"),
    ("ndnet45-fcn32", 11, 360, 480, "0.167"),
    ("ndnet45-fcn32", 11, 720, 960, "0.655"),
    ("ndnet61-fcn32", 19, 1024, 2048, "1.604"),
    ("ndnet45-ende", 19, 1024, 2048, "6.737"),
    ("ndnet45-ende", 19, 512, 1024, "1.684"),
    ("ndnet45-ende", 11, 360, 480, "0.559"),
    ("ndnet45-ende", 11, 720, 960, "2.215"),
    ("swiftnet-rn18", 19, 1024, 2048, "103.566"),  # "104.0 GFLOPs" in the paper
    ("swiftnet-rn18", 19, 512, 1024, "25.9"),
    ("swiftnet-rn18", 11, 360, 480, "8.65"),
    ("swiftnet-rn18", 11, 720, 960, "34.2"),
    ("swiftnet-rn18-pyramid", 19, 1024, 2048, "128.193"),
    ("swiftnet-rn18-pyramid", 19, 720, 960, "42.6"),
    ("swiftnet-rn18-pyramid", 19, 360, 480, "10.8"),
    ("swiftnet-mnv2", 19, 1024, 2048, "38.15"),
    ("stdc1", 19, 360, 480, "2.95"),
    ("fast-scnn", 19, 1024, 2048, "6.710"),  # its first convolution padded
    ("regseg", 19, 1024, 2048, "38.353"),
    ("regseg", 19, 512, 1024, "9.589"),
    ("regseg", 11, 360, 480, "3.193"),
    ("regseg", 11, 720, 960, "12.619"),
    ("dabnet", 19, 1024, 2048, "40.882"),
    ("dabnet", 19, 512, 1024, "10.220"),
    ("dabnet", 11, 360, 480, "3.363"),
    ("ddrnet23-slim", 19, 1024, 2048, "36.281319424"),  # "36.3 GFLOPs"
    ("ddrnet23-slim", 11, 360, 480, "3.036"),
    ("ddrnet23-slim", 11, 720, 960, "12.009"),
    ("rdrnet-s", 19, 1024, 2048, "43.367596032"),  # "43.4 GFLOPs"
    ("rdrnet-s", 11, 360, 480, "3.636"),
    ("rdrnet-s", 11, 720, 960, "14.356"),
    ("rdrnet-s-simple", 19, 1024, 2048, "40.911831040"),  # "41.0 GFLOPs"
    ("rdrnet-s-simple", 11, 360, 480, "3.435"),
    ("rdrnet-s-simple", 11, 720, 960, "13.552"),
]


@pytest.mark.parametrize(("name", "classes", "inference", "training"), PARAMETERS)
def test_published_networks_have_the_published_parameters(
    name: str, classes: int, inference: int, training: int
) -> None:
    architecture = space.load(name)
    assert space.parameters(architecture, classes) == inference
    assert space.parameters(architecture, classes, auxiliary=True) == training


@pytest.mark.share(4)
@pytest.mark.parametrize(("name", "classes", "inference", "training"), PARAMETERS[::2])
def test_built_networks_have_the_counted_parameters(name: str, classes: int, inference: int, training: int) -> None:
    architecture = space.load(name)
    for auxiliary, expected in ((False, inference), (True, training)):
        network = architecture.build(classes, auxiliary=auxiliary)
        assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_every_published_network_is_in_the_tables() -> None:
    assert {row[0] for row in PARAMETERS} == {row[0] for row in MULTIPLY_ADDS} == set(space.published())


def as_printed(count: int, expected: str) -> str:
    """A count in 10^9, with the digits of a printed number."""
    return f"{count / 1e9:.{len(expected.split('.')[1])}f}"


@pytest.mark.parametrize(("name", "classes", "height", "width", "expected"), MULTIPLY_ADDS)
def test_published_networks_have_the_published_multiply_adds(
    name: str, classes: int, height: int, width: int, expected: str
) -> None:
    counted = space.multiply_adds(space.load(name), (height, width), classes)
    assert as_printed(counted, expected) == expected


def fpl_encoder() -> Architecture:
    return space.load("fplnet-encoder")


@pytest.mark.parametrize(
    ("fuse", "expected"),
    [
        ("image", 414_810),
        ("add", 414_636),
        ("concat", 419_820),
        ("image_add", 414_810),
        ("image_concat", 419_994),
        ("fir", 419_994),
    ],
)
def test_fplnet_table_8_fusions_are_exact(fuse: Fuse, expected: int) -> None:
    assert space.parameters(in_stages(fpl_encoder(), fuse=fuse), 20) == expected


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ((2, 6), 323_738),
        ((2, 8), 400_538),
        ((2, 10), 477_338),
        ((2, 12), 554_138),  # the paper's own differences contradict the 0.57 it prints
        ((4, 6), 343_194),
        ((4, 8), 419_994),
        ((4, 10), 496_794),
        ((4, 12), 573_594),
    ],
)
def test_fplnet_table_9_depths_have_the_published_parameters(depths: tuple[int, int], expected: int) -> None:
    encoder = fpl_encoder()
    stages = tuple(replace(stage, depth=depth) for stage, depth in zip(encoder.stages, depths, strict=True))
    assert space.parameters(replace(encoder, stages=stages), 20) == expected


@pytest.mark.parametrize(("factorization", "expected"), [("none", 544_474), ("all", 388_874), ("composite", 419_994)])
def test_fplnet_table_10_factorizations_have_the_published_parameters(factorization: str, expected: int) -> None:
    assert space.parameters(in_stages(fpl_encoder(), factorization=factorization), 20) == expected


@pytest.mark.parametrize(
    ("name", "prefix", "parameters", "multiply_adds"),
    [
        ("regseg", "stem", 928, "0.4530"),
        ("regseg", "stage0", 13_496, "2.2146"),
        ("regseg", "stage1", 171_980, "5.5029"),
        ("regseg", "stage2", 2_617_376, "18.6902"),
        ("regseg", "stage3", 356_224, "2.5586"),
        ("regseg", "decoder.top", 41_216, "0.3355"),
        ("regseg", "decoder.step0", 90_496, "2.9528"),
        ("regseg", "decoder.step1", 42_000, "5.4861"),
        ("regseg", "head", 1_235, "0.1594"),
        ("dabnet", "stem.conv", 19_584, "10.1167"),
        ("dabnet", "stem.image", 105, "0.0000"),
        ("dabnet", "stage0.down", 9_327, "1.1973"),
        ("dabnet", "stage0.block", 64_896, "8.2041"),
        ("dabnet", "stage0.fuse", 393, "0.0000"),
        ("dabnet", "stage1.down", 151_296, "4.9451"),
        ("dabnet", "stage1.block", 505_344, "16.2571"),
        ("dabnet", "stage1.fuse", 777, "0.0000"),
        ("dabnet", "head", 4_921, "0.1613"),
    ],
)
def test_parts_of_regseg_and_dabnet_have_the_published_counts(
    name: str, prefix: str, parameters: int, multiply_adds: str
) -> None:
    size, classes = (1024, 2048), 19
    assert total(name, lambda row: row.parameters, (prefix,), size, classes) == parameters
    counted = total(name, lambda row: row.multiply_adds, (prefix,), size, classes)
    assert as_printed(counted, multiply_adds) == multiply_adds


@pytest.mark.parametrize(("convolutions", "expected"), [(3, 419_994), (1, 401_370)])
def test_fplnet_table_7_downsamplings_have_the_published_counts(convolutions: int, expected: int) -> None:
    encoder = fpl_encoder()
    hasty = replace(encoder, stem=replace(encoder.stem, convolutions=convolutions))
    assert space.parameters(hasty, 20) == expected


def test_fplnet_table_6_esp_modules_have_the_published_counts() -> None:
    esp = in_stages(fpl_encoder(), block="esp", rates=(1, 2, 4, 8, 16), factorization="none")
    assert space.parameters(esp, 20) == 386_177


def total(
    name: str,
    value: Callable[[Layer], int],
    prefixes: tuple[str, ...],
    size: tuple[int, int] = (512, 1024),
    classes: int = 20,
) -> int:
    """Sum over the layers whose names start with one of the prefixes."""
    rows = space.layers(space.load(name), size, classes)
    return sum(value(row) for row in rows if row.name.startswith(prefixes))


@pytest.mark.parametrize(
    ("prefixes", "parameters", "multiply_adds"),
    [
        (("stem.conv",), 19_584, "2.529"),
        (("stem.image",), 140, "0.000"),
        (("stage0.down",), 9_280, "0.350"),
        (("stage0.block",), 38_912, "1.242"),
        (("stage0.fuse",), 393, "0.000"),
        (("stage1.down",), 38_528, "0.414"),
        (("stage1.block",), 307_200, "2.483"),
        (("stage1.fuse",), 777, "0.000"),
        (("decoder.projection",), 16_576, "0.136"),
        (("decoder.step0.up",), 37_120, "0.302"),
        (("decoder.step0.block",), 19_456, "0.621"),
        (("decoder.step1.up",), 9_280, "0.302"),
        (("decoder.step1.block",), 1_312, "0.155"),
        (("head",), 1_300, "0.168"),
    ],
)
def test_rows_of_fplnet_table_2_have_the_published_counts(
    prefixes: tuple[str, ...], parameters: int, multiply_adds: str
) -> None:
    assert total("fplnet", lambda row: row.parameters, prefixes) == parameters
    counted = total("fplnet", lambda row: row.multiply_adds, prefixes)
    assert as_printed(counted, multiply_adds) == multiply_adds


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("stem", 396),
        ("stage0.down", 7_088),
        *((f"stage0.block{index}.", 49_664) for index in range(5)),
        ("stage1.down", 37_184),
        *((f"stage1.block{index}.", 197_632) for index in range(8)),
        ("decoder.step0.up", 73_920),
        ("decoder.step0.block0.", 49_664),
        ("decoder.step1.up", 9_264),
        ("decoder.step1.block1.", 3_200),
        ("head", 65 * 20),
    ],
)
def test_layers_of_erfnet_have_the_published_counts(prefix: str, expected: int) -> None:
    assert total("erfnet", lambda row: row.parameters, (prefix,)) == expected


@pytest.mark.parametrize(
    ("name", "prefix", "expected"),
    [
        ("fplnet", "stage0.block2.", 9_728),
        ("fplnet", "stage1.block7.", 38_400),
        ("fplnet", "decoder.step1.block0.", 656),
        ("fplnet-encoder", "head", 259 * 20),
        ("ndnet45-fcn32", "stage0.block1.", 55 * 16 + 8 * 16**2),
        ("ndnet45-fcn32", "stage1.block5.", 55 * 32 + 8 * 32**2),
        ("ndnet45-fcn32", "stage2.block5.", 55 * 64 + 8 * 64**2),
        ("swiftnet-rn18", "decoder.context", 116_476),
        ("swiftnet-rn18", "decoder.lateral2", 2 * 256 + 256 * 128),
        ("swiftnet-rn18", "decoder.blend16", 2 * 128 + 9 * 128**2),
    ],
)
def test_parts_of_networks_have_the_published_parameters(name: str, prefix: str, expected: int) -> None:
    assert total(name, lambda row: row.parameters, (prefix,)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("swiftnet-rn18", 11_176_512),  # ResNet-18 without its classifier
        ("swiftnet-rn18-pyramid", 11_192_128),
        ("ndnet45-fcn32", 379_896),
        ("ndnet61-fcn32", 292_096),
        ("ndnet29-fcn32", 492_016),
        ("ndnet29w-fcn32", 3_308_216),
    ],
)
def test_backbones_have_the_published_parameters(name: str, expected: int) -> None:
    assert total(name, lambda row: row.parameters, ("stem", "stage")) == expected


def test_parts_of_swiftnet_decoders_have_the_published_parameters() -> None:
    def count(name: str, *prefixes: str) -> int:
        return total(name, lambda row: row.parameters, prefixes, classes=19)

    assert count("swiftnet-rn18", "decoder.context") == 116_476
    assert count("swiftnet-rn18", "decoder.lateral2", "decoder.blend16") == 180_992
    assert count("swiftnet-rn18", "decoder.lateral1", "decoder.blend8") == 164_352
    assert count("swiftnet-rn18", "decoder.lateral0", "decoder.blend4") == 156_032
    assert count("swiftnet-rn18", "head") == 2_707
    assert count("swiftnet-rn18-pyramid", "decoder.lateral") == 122_880
    assert count("swiftnet-rn18-pyramid", "decoder.blend") == 738_560


def test_the_pyramid_has_sixty_batch_norms() -> None:
    layers = space.layers(space.load("swiftnet-rn18-pyramid"), (64, 96), 19)
    assert len({layer.name for layer in layers if layer.kind == "norm" and layer.parameters}) == 60


def test_a_pyramid_of_two_levels_has_the_published_counts() -> None:
    pyramid = replace(space.load("swiftnet-rn18-pyramid"), levels=2)
    assert space.parameters(pyramid, 19) == 11_900_755
    assert as_printed(space.multiply_adds(pyramid, (1024, 2048), 19), "123.25") == "123.25"


@pytest.mark.parametrize(
    ("factorization", "expected", "multiply_adds"),
    [("none", 2_970_880, "37.1"), ("composite", 2_517_568, "31.8"), ("all", 2_064_256, "26.6")],
)
def test_erfnet_stages_with_other_factorizations_have_the_expected_counts(
    factorization: str, expected: int, multiply_adds: str
) -> None:
    crossed = in_stages(space.load("erfnet"), factorization=factorization)
    assert space.parameters(crossed, 20) == expected
    assert as_printed(space.multiply_adds(crossed, (512, 1024), 20), multiply_adds) == multiply_adds


def test_an_erfnet_encoder_with_the_decoder_of_ndnet_has_the_expected_counts() -> None:
    crossed = replace(
        space.load("erfnet-encoder"), decoder=CatDecoder(tap=0, width=64), head=Head(kind="sep", width=64)
    )
    assert space.parameters(crossed, 20) == 1_892_560
    assert as_printed(space.multiply_adds(crossed, (360, 480), 20), "7.3") == "7.3"


def test_swiftnet_at_half_width_behind_the_full_stem_has_the_expected_counts() -> None:
    parent = space.load("swiftnet-rn18")
    stages = tuple(replace(stage, width=stage.width // 2) for stage in parent.stages)
    context = SpatialPyramid(bottleneck=64, level_width=21, grids=(8, 4, 2))
    half = replace(parent, stages=stages, context=context, decoder=LadderDecoder(width=64))
    assert space.parameters(half, 19) == 2_971_793
    assert as_printed(space.multiply_adds(half, (360, 480), 19), "2.6") == "2.6"


def test_ndnet_with_the_decoder_of_swiftnet_has_the_expected_counts() -> None:
    context = SpatialPyramid(bottleneck=64, level_width=21, grids=(8, 4, 2))
    crossed = replace(
        space.load("ndnet45-fcn32"), context=context, decoder=LadderDecoder(width=64), head=Head(kind="preact")
    )
    assert space.parameters(crossed, 19) == 497_609
    assert as_printed(space.multiply_adds(crossed, (360, 480), 19), "0.31") == "0.31"


def test_erfnet_stem_fplnet_stages_and_ndnet_decoder_have_the_expected_counts_together() -> None:
    """The count of 456,052 was taken with PReLU in the stages only; here one activation holds everywhere."""
    crossed = replace(
        fpl_encoder(),
        stem=Stem(kind="cat", width=16),
        decoder=CatDecoder(tap=0, width=128),
        head=Head(kind="sep", width=64),
    )
    slopes_elsewhere = 16 + 128 + 64
    assert space.parameters(crossed, 19) - slopes_elsewhere == 456_052
    assert as_printed(space.multiply_adds(crossed, (360, 480), 19), "2.1") == "2.1"


def test_depth_is_the_sum_of_the_layer_tables_of_papers() -> None:
    """ERFNet (Table I): three downsamplers and thirteen blocks of four 1D convolutions, then three deconvolutions and
    four more blocks. SwiftNet: ResNet-18's 7x7 and sixteen 3x3, then the three 3x3 of its ladder.
    """
    assert space.depth(space.load("erfnet-encoder"), 19) == 3 + 13 * 4
    assert space.depth(space.load("erfnet"), 19) == 3 + 13 * 4 + 3 + 4 * 4
    assert space.depth(space.load("swiftnet-rn18"), 19) == 1 + 16 + 3
