"""The LCLS-I XTC file format: `format` its layout, `reader` walks it, `writer` writes it."""
