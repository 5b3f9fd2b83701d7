"""Processes: one module each, every one with `run(args, settings) -> int`; `services.cli` starts them."""
