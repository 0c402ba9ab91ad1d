"""`python -m train`."""

from common.start import start

if __name__ == "__main__":
    start("train", "xtcav-train")
