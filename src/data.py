"""Look at a folder of images as training would: python src/data.py check <folder>."""

from bnnbench.data.check import main

if __name__ == "__main__":
    raise SystemExit(main())
