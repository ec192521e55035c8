"""`python -m napari_unet_seg` is the command `napari-unet-seg`."""

from __future__ import annotations

from napari_unet_seg._cli import main

if __name__ == "__main__":
    main()
