"""Subcommands of ``impasto`` that have many options, a module each: OPTIONS, add_options(parser) and run(arguments)."""
