"""Segment pictures on a board that has no more of this project than a bundle: ``python -m enet_tvm.runtime``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from enet_tvm.errors import UserError
from enet_tvm.files import write_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 on success, and 2 on bad input after one sentence on the error stream."""
    parser = argparse.ArgumentParser(prog="enet-run", description="Segment pictures with a compiled network; write overlays.")
    parser.add_argument("artifact", type=Path, help="directory that 'enet-tvm compile' wrote")
    parser.add_argument("inputs", type=Path, nargs="+", help="pictures, and folders of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the overlays")
    parser.add_argument("--labels", action="store_true", help="also write class numbers as <name>_labels.png")
    parser.add_argument("--threads", type=int, help="threads to use; all processors if not given")
    parser.add_argument("--json", type=Path, help="write figures and classes per picture to this file")
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except UserError as error:
        print(f"enet-run: error: {error}", file=sys.stderr)
        return 2


def _run(given: argparse.Namespace) -> int:
    from enet_tvm.runtime.batch import segment_files, summarise
    from enet_tvm.runtime.pictures import find_pictures
    from enet_tvm.runtime.segmenter import Segmenter

    pictures = find_pictures(given.inputs, exclude=given.output)
    outcomes = []
    with Segmenter.load(given.artifact, given.threads) as segmenter:
        for outcome in segment_files(segmenter, pictures, given.inputs, given.output, labels=given.labels):
            outcomes.append(outcome)
            if outcome.error is not None:
                print(f"enet-run: error: {outcome.error}", file=sys.stderr)
        summary = summarise(outcomes, segmenter)
    if given.json is not None:
        write_json(given.json, summary)
    if summary["pictures"]:
        print(
            f"{summary['pictures']} overlays in {given.output}: median {summary['median_network_ms']:.1f} ms in the network, "
            f"{summary['median_total_ms']:.1f} ms from picture to labels ({summary['size']}, {summary['threads']} threads)"
        )
    return 2 if summary["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
