"""Suites: many methods on one benchmark under one protocol, from nothing to a table."""
