"""`nas data`: print what a data set holds, and what is odd about it."""

from __future__ import annotations

import argparse

from nas.commands.shared import common

EPILOG = """\
Every file is decoded anew, as for a training. Files that cannot be trained on are refused by name; oddities are printed
as notes.

examples:
  nas data folder:~/my-images --input 360x480
  nas data studies/camvid/study.yaml                           the data of a study"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `nas data`."""
    parser.epilog = EPILOG
    parser.add_argument(
        "data",
        metavar="DATA",
        type=common.path,
        help="camvid:DIR, cityscapes:DIR, folder:DIR, road_scenes or a study's YAML file",
    )
    parser.add_argument(
        "--input",
        metavar="HxW",
        help="height and width of the networks' input (default: the study's, or that of the images)",
    )


def run(options: argparse.Namespace) -> None:
    """Print images, sizes, classes with their shares, void, and the files that were left out.

    Raises: UserError or DataError for data that cannot be trained on.
    """
    from dataclasses import replace
    from pathlib import Path

    from nas.data import read_image
    from nas.study import load_study
    from nas.terminal import data_table

    if Path(options.data).is_file():
        spec = load_study(options.data).data
        dataset = common.loaded(replace(spec, size=common.input_size(options.input)) if options.input else spec)
    elif options.input or options.data == common.DEFAULT_DATA:
        size = common.input_size(options.input or common.DEFAULT_INPUT)
        dataset = common.loaded(common.data_spec(options.data, size))
    else:  # at their own size, so that no note is about resizing
        dataset = common.loaded(common.data_spec(options.data, common.input_size(common.DEFAULT_INPUT)))
        height, width, _ = read_image(dataset.train.images[0], None).shape
        dataset = replace(dataset, size=(height, width))
    uncached = replace(dataset, cache_gigabytes=0)  # the files as they are now, not earlier findings
    print(data_table(common.looked_at(uncached)))
