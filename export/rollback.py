"""Goes back to an earlier version: `lfm4ads-rollback MODEL_DIR [--to VERSION]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lfm4ads_tf.errors import ExportRefused, UserError
from lfm4ads_tf.export.publishing import restore, roll_back, versions


def main(arguments: Sequence[str] | None = None) -> int:
    """Rolls a model back, or puts a version back.

    Returns:
        0 when done, 3 when refused, the reason on the last line, 2 for unusable arguments.
    """
    parser = argparse.ArgumentParser(prog="lfm4ads-rollback", description=__doc__)
    parser.add_argument("model_dir", type=Path, help="a model's folder with its versions")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--to", type=int, metavar="VERSION", help="default: the one before the newest"
    )
    what.add_argument("--restore", type=int, metavar="VERSION", help="put this one back")
    given = parser.parse_args(arguments)
    folder = given.model_dir.resolve()
    try:
        if not folder.is_dir():
            raise UserError(
                f"There is no folder '{folder}'.", fix="name a model's folder, with its versions"
            )
        if given.restore is not None:
            print(
                f"{folder.name}: version {restore(folder, given.restore).name} is back in service"
            )
        else:
            gone = roll_back(folder, given.to)
            told = f"taken out: {', '.join(map(str, gone))}" if gone else "nothing is above it"
            print(f"{folder.name}: the newest version is {versions(folder)[-1]}; {told}")
            for version in gone:
                print(f"  put back with --restore {version}")
    except ExportRefused as refused:
        print(f"{folder.name} refused: {' '.join(str(refused).split())}")
        return 3
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"'{folder}' cannot be changed: {error.strerror}.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
