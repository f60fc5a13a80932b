"""The commands of `fewbits`. Bad input gets one sentence and exit code 2."""
