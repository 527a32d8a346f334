"""The way in from Triton: the importer of its IR, its options, libdevice and source locations."""
