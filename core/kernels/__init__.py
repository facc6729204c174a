"""What kernels are made of: vectors in registers, pointers, and scans of a row."""
