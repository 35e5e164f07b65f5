"""Run folders as tables. Reads files and nothing else; never imports torch."""
