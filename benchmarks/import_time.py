"""How long `import napari_unet_seg` takes beyond starting Python, and what a first use of torch adds."""

from __future__ import annotations

import subprocess
import sys

from _common import median_seconds, write_result

TARGET_S = 0.3


def _start(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    bare, package, with_torch = median_seconds(
        lambda: _start("pass"),
        lambda: _start("import napari_unet_seg"),
        lambda: _start("import napari_unet_seg; napari_unet_seg.load_model"),
    )
    taken = package - bare
    write_result(
        "import_time",
        {
            "what": "`import napari_unet_seg`, beyond starting Python",
            "value": round(taken, 3),
            "unit": "s",
            "target": f"< {TARGET_S} s",
            "met": taken < TARGET_S,
            "bare_python_s": round(bare, 3),
            "ratio_to_bare_python": round(package / bare, 2),
            "first_name_that_needs_torch_s": round(with_torch - bare, 2),
        },
    )


if __name__ == "__main__":
    main()
