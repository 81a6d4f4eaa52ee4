"""Draw docs/preview.png: what the default of `protect` does to drawn pictures. A few minutes of one core.

python benchmarks/picture.py [FOLDER]
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from common import ROOT

import miue


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/picture")
    pictures = folder / "pictures"
    if not pictures.exists():
        miue.publish.export(miue.data.shapes(per_class=150), pictures)
    miue.protect(pictures, folder / "out", run=miue.Run(0, quiet=False))
    drawn = folder / "preview.png"
    drawn.unlink(missing_ok=True)
    print(shutil.copy(miue.preview(folder / "out", pictures, to=drawn), ROOT / "docs" / "preview.png"))


if __name__ == "__main__":
    main()
