//! What stands in the kernel object: instructions found by reading its ELF sections, without a disassembler.
