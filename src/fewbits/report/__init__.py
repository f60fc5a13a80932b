"""Accuracy, errors by tensor, ledger, engines compared, energy and latency: as values, then as tables and a page."""
