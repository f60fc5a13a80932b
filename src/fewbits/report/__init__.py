"""What happened: accuracy, errors, ledger, agreement and time as values; then shown."""
