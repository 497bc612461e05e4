"""Subcommands of ``impasto``, a module each: SUMMARY, DESCRIPTION, OPTIONS and run(arguments)."""
