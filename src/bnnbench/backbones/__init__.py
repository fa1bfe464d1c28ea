"""Networks, each built from a quantizer and the structure switches of its yaml."""
